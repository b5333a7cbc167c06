//! The handle with which a test injects faults, changes the knobs, and acts on open sockets.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::after;

use super::fault::{Action, Call, Knobs, Rejection, Rule};
use super::frame;
use super::outbox::{Cut, Out, Outbox};
use super::state::Shared;

/// A handle to a service. All clones act on the same service.
#[derive(Clone)]
pub struct Faults(pub(super) Arc<Shared>);

impl Faults {
    /// Makes this call fail until healed.
    pub fn fail(&self, call: Call, action: Action) {
        self.add(call, action, None);
    }

    /// Makes every call fail until healed; open sockets stay open.
    pub fn fail_all(&self, action: &Action) {
        Call::ALL.into_iter().for_each(|call| self.add(call, action.clone(), None));
    }

    /// Makes this call fail the next `times` times.
    pub fn fail_next(&self, call: Call, action: Action, times: u32) {
        if times > 0 {
            self.add(call, action, Some(times));
        }
    }

    fn add(&self, call: Call, action: Action, left: Option<u32>) {
        self.0.change(|state| state.rules.push(Rule { call, action, left }));
    }

    /// Makes this call work again and ends its hanging requests.
    pub fn heal(&self, call: Call) {
        self.0.change(|state| {
            state.rules.retain(|rule| rule.call != call);
            state.healed += 1;
        });
    }

    /// Makes every call work again, permits every topic and thaws every socket. Does not reset the knobs.
    pub fn heal_all(&self) {
        self.0.change(|state| {
            state.rules.clear();
            state.healed += 1;
            state.rejections.clear();
        });
        self.thaw_sockets();
    }

    /// Changes the knobs.
    pub fn set(&self, change: impl FnOnce(&mut Knobs)) {
        self.0.change(|state| change(&mut state.knobs));
    }

    /// Revokes every token.
    pub fn revoke_tokens(&self) {
        self.0.change(|state| state.tokens.revoke_all());
    }

    /// Expires every token.
    pub fn expire_tokens(&self) {
        self.0.change(|state| state.tokens.expire_all());
    }

    /// Rejects topics with this prefix from the next (re)subscription on.
    pub fn reject_topics(&self, prefix: &str, reason: &str, missing_permissions: &[&str]) {
        let missing_permissions = missing_permissions.iter().map(|&permission| permission.to_owned()).collect();
        let rejection = Rejection { prefix: prefix.to_owned(), reason: reason.to_owned(), missing_permissions };
        self.0.change(|state| state.rejections.push(rejection));
    }

    /// Permits every topic again from the next (re)subscription on.
    pub fn permit_topics(&self) {
        self.0.change(|state| state.rejections.clear());
    }

    /// Releases withheld events into the history.
    pub fn release_history(&self) {
        let now = self.0.running_ms();
        self.0.change(|state| {
            state.knobs.hold_history = false;
            state.history.release(now);
        });
    }

    /// Closes every socket's connection at once without a close frame, even in mid-frame.
    pub fn cut_sockets(&self) {
        self.each_socket(|socket| socket.cut(Cut::Close));
    }

    /// Resets every socket's connection.
    pub fn reset_sockets(&self) {
        self.each_socket(|socket| socket.cut(Cut::Reset));
    }

    /// Freezes every socket: it stays open, but is neither read nor written.
    pub fn half_open_sockets(&self) {
        self.each_socket(|socket| socket.put(Out::Freeze));
    }

    /// Sends the first half of a text frame, then freezes. The other half follows when thawed.
    pub fn stall_sockets_in(&self, text: &str) {
        let whole = frame::text(text);
        let (first, second) = whole.split_at(whole.len() / 2);
        self.each_socket(|socket| {
            socket.put(Out::Bytes(first.to_vec()));
            socket.put(Out::Freeze);
            socket.put(Out::Bytes(second.to_vec()));
        });
    }

    /// Thaws frozen sockets.
    pub fn thaw_sockets(&self) {
        self.each_socket(Outbox::thaw);
    }

    /// Sends a text frame on every socket.
    pub fn send_text(&self, text: &str) {
        self.send_bytes(&frame::text(text));
    }

    /// Sends these raw bytes on every socket; [`frame`] builds frames of any kind.
    pub fn send_bytes(&self, bytes: &[u8]) {
        self.each_socket(|socket| socket.put(Out::Bytes(bytes.to_vec())));
    }

    /// Sends these bytes on every socket in pieces of `size` with pauses; returns when all are sent.
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

    /// Announces on every socket that it will be closed; the test must close it itself.
    pub fn announce_closing(&self) {
        self.announce("socket_closing");
    }

    /// Sends `v2.system.token_revoked` on every socket and revokes every token.
    pub fn announce_token_revoked(&self) {
        self.revoke_tokens();
        self.announce("token_revoked");
    }

    /// Sends `v2.system.no_longer_subscribed` on every socket and removes all topics of the channels.
    pub fn announce_no_longer_subscribed(&self) {
        self.0.change(|state| state.channels.list.iter_mut().for_each(|channel| channel.topics.clear()));
        self.announce("no_longer_subscribed");
    }

    fn announce(&self, what: &str) {
        self.send_text(&format!("{{\"topicName\":\"v2.system.{what}\",\"eventBody\":{{\"message\":\"{what}\"}}}}"));
    }

    /// Disconnects every socket, as if another client had connected to its channel.
    pub fn take_over_channels(&self) {
        self.cut_sockets();
    }

    /// Removes every channel, as if evicted by newer ones, and announces that on its socket.
    pub fn evict_channels(&self) {
        self.0.change(|state| state.channels.list.drain(..).for_each(|channel| channel.announce_gone()));
    }

    /// Removes every channel and cuts its socket without a close frame.
    pub fn drop_channels(&self) {
        self.cut_sockets();
        self.0.change(|state| state.channels.list.clear());
    }

    fn each_socket(&self, act: impl Fn(&Outbox)) {
        self.0.change(|state| state.channels.list.iter().filter_map(|c| c.socket.as_deref()).for_each(act));
    }
}
