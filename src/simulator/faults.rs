//! The handle through which a test makes calls go wrong, turns the knobs, and acts on open sockets.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::after;

use super::fault::{Action, Call, Knobs, Rejection, Rule};
use super::frame;
use super::outbox::{Cut, Out, Outbox};
use super::state::Shared;

/// Cloned freely; all clones speak to the same service.
#[derive(Clone)]
pub struct Faults(pub(super) Arc<Shared>);

impl Faults {
    /// This call goes wrong, until healed.
    pub fn fail(&self, call: Call, action: Action) {
        self.add(call, action, None);
    }

    /// The service is out of order: every call goes wrong, until healed; sockets that are open stay.
    pub fn fail_all(&self, action: &Action) {
        Call::ALL.into_iter().for_each(|call| self.add(call, action.clone(), None));
    }

    /// The next so many of this call go wrong.
    pub fn fail_next(&self, call: Call, action: Action, times: u32) {
        if times > 0 {
            self.add(call, action, Some(times));
        }
    }

    fn add(&self, call: Call, action: Action, left: Option<u32>) {
        self.0.change(|state| state.rules.push(Rule { call, action, left }));
    }

    /// This call works again; what hangs in it ends.
    pub fn heal(&self, call: Call) {
        self.0.change(|state| {
            state.rules.retain(|rule| rule.call != call);
            state.healed += 1;
        });
    }

    /// Every call works again, every topic is permitted, every socket thaws. Knobs stay as they are.
    pub fn heal_all(&self) {
        self.0.change(|state| {
            state.rules.clear();
            state.healed += 1;
            state.rejections.clear();
        });
        self.thaw_sockets();
    }

    /// Changes how the service behaves.
    pub fn set(&self, change: impl FnOnce(&mut Knobs)) {
        self.0.change(|state| change(&mut state.knobs));
    }

    /// Every token is dead from now on, as though revoked.
    pub fn revoke_tokens(&self) {
        self.0.change(|state| state.tokens.revoke_all());
    }

    /// Every token is dead from now on, as though its time were over.
    pub fn expire_tokens(&self) {
        self.0.change(|state| state.tokens.expire_all());
    }

    /// Topics that begin so are rejected from now on, at the next (re)subscription.
    pub fn reject_topics(&self, prefix: &str, reason: &str, missing_permissions: &[&str]) {
        let missing_permissions = missing_permissions.iter().map(|&permission| permission.to_owned()).collect();
        let rejection = Rejection { prefix: prefix.to_owned(), reason: reason.to_owned(), missing_permissions };
        self.0.change(|state| state.rejections.push(rejection));
    }

    /// Every topic is permitted again, at the next (re)subscription.
    pub fn permit_topics(&self) {
        self.0.change(|state| state.rejections.clear());
    }

    /// Lets what was held back into the history.
    pub fn release_history(&self) {
        let now = self.0.running_ms();
        self.0.change(|state| {
            state.knobs.hold_history = false;
            state.history.release(now);
        });
    }

    /// Closes every socket's connection at once, in mid-frame or not, without a word.
    pub fn cut_sockets(&self) {
        self.each_socket(|socket| socket.cut(Cut::Close));
    }

    /// Resets every socket's connection.
    pub fn reset_sockets(&self) {
        self.each_socket(|socket| socket.cut(Cut::Reset));
    }

    /// Every open socket stays open and is silent: nothing is read, written or answered any more.
    pub fn half_open_sockets(&self) {
        self.each_socket(|socket| socket.put(Out::Freeze));
    }

    /// Sends the first half of a text frame and is silent then; the other half follows when thawed.
    pub fn stall_sockets_in(&self, text: &str) {
        let whole = frame::text(text);
        let (first, second) = whole.split_at(whole.len() / 2);
        self.each_socket(|socket| {
            socket.put(Out::Bytes(first.to_vec()));
            socket.put(Out::Freeze);
            socket.put(Out::Bytes(second.to_vec()));
        });
    }

    /// What was silent goes on.
    pub fn thaw_sockets(&self) {
        self.each_socket(Outbox::thaw);
    }

    /// Sends a text frame on every socket.
    pub fn send_text(&self, text: &str) {
        self.send_bytes(&frame::text(text));
    }

    /// Sends these bytes as they are on every socket; [`frame`] makes frames of any kind.
    pub fn send_bytes(&self, bytes: &[u8]) {
        self.each_socket(|socket| socket.put(Out::Bytes(bytes.to_vec())));
    }

    /// Sends these bytes on every socket, so many at a time, with a pause after each; returns when all are sent.
    pub fn send_in_pieces(&self, bytes: &[u8], size: usize, pause: Duration) {
        for piece in bytes.chunks(size.max(1)) {
            self.send_bytes(piece);
            let _ = after(pause).recv();
        }
    }

    /// Closes every socket with this code and reason.
    pub fn close_sockets(&self, code: u16, reason: &str) {
        self.each_socket(|socket| {
            socket.put(Out::Bytes(frame::close(code, reason)));
            socket.put(Out::End);
        });
    }

    /// Announces on every socket that it will be closed; the test closes it when it likes.
    pub fn announce_closing(&self) {
        self.announce("socket_closing");
    }

    /// `v2.system.token_revoked` on every socket, and every token is dead.
    pub fn announce_token_revoked(&self) {
        self.revoke_tokens();
        self.announce("token_revoked");
    }

    /// `v2.system.no_longer_subscribed` on every socket, whose channels lose their topics.
    pub fn announce_no_longer_subscribed(&self) {
        self.0.change(|state| state.channels.list.iter_mut().for_each(|channel| channel.topics.clear()));
        self.announce("no_longer_subscribed");
    }

    fn announce(&self, what: &str) {
        self.send_text(&format!("{{\"topicName\":\"v2.system.{what}\",\"eventBody\":{{\"message\":\"{what}\"}}}}"));
    }

    /// Somebody else connects to every channel: whoever was connected is put out.
    pub fn take_over_channels(&self) {
        self.cut_sockets();
    }

    /// Every channel is gone, as though others had pushed it out; its socket is told.
    pub fn evict_channels(&self) {
        self.0.change(|state| state.channels.list.drain(..).for_each(|channel| channel.announce_gone()));
    }

    /// Every channel is gone, and its socket is cut without a word.
    pub fn drop_channels(&self) {
        self.cut_sockets();
        self.0.change(|state| state.channels.list.clear());
    }

    fn each_socket(&self, act: impl Fn(&Outbox)) {
        self.0.change(|state| state.channels.list.iter().filter_map(|c| c.socket.as_deref()).for_each(act));
    }
}
