//! The handle through which a test switches faults on and off.
//!
//! Deals with: calls that go wrong, knobs, and what happens to open sockets. Must never: be given to a connection.

use std::sync::Arc;
use std::time::Duration;

use super::fault::{Action, Call, Knobs, Rejection};
use super::frame;
use super::outbox::{Cut, Out, Outbox};
use super::state::{Shared, State, tell_gone};

/// Cloned freely; all clones speak to the same service.
#[derive(Clone)]
pub struct Faults(pub(super) Arc<Shared>);

impl Faults {
    /// This call goes wrong, until healed.
    pub fn fail(&self, call: Call, action: Action) {
        self.0.change(|state| state.faults.add(call, action, None));
    }

    /// The service is out of order: every call goes wrong, until healed; sockets that are open stay.
    pub fn fail_all(&self, action: &Action) {
        self.0.change(|state| Call::ALL.iter().for_each(|call| state.faults.add(*call, action.clone(), None)));
    }

    /// The next so many of this call go wrong.
    pub fn fail_next(&self, call: Call, action: Action, times: u32) {
        if times > 0 {
            self.0.change(|state| state.faults.add(call, action, Some(times)));
        }
    }

    /// This call works again; what hangs in it ends.
    pub fn heal(&self, call: Call) {
        self.0.change(|state| state.faults.heal(Some(call)));
    }

    /// Every call works again, every topic is permitted, every socket thaws. Knobs stay as they are.
    pub fn heal_all(&self) {
        self.0.change(|state| {
            state.faults.heal(None);
            state.faults.rejections.clear();
        });
        self.each_socket(Outbox::thaw);
    }

    /// Changes how the service behaves.
    pub fn set(&self, change: impl FnOnce(&mut Knobs)) {
        self.0.change(|state| change(&mut state.faults.knobs));
    }

    /// Every token is dead from now on, as though revoked.
    pub fn revoke_tokens(&self) {
        self.end_tokens(false);
    }

    /// Every token is dead from now on, as though its time were over.
    pub fn expire_tokens(&self) {
        self.end_tokens(true);
    }

    fn end_tokens(&self, expired: bool) {
        let now = self.0.clock.now();
        self.0.change(|state| state.tokens.end_all(expired, now));
    }

    /// Topics that begin so are rejected from now on, at the next (re)subscription.
    pub fn reject_topics(&self, prefix: &str, reason: &str, missing_permissions: &[&str]) {
        let rejection = Rejection {
            prefix: prefix.to_owned(),
            reason: reason.to_owned(),
            missing_permissions: missing_permissions.iter().map(|&p| p.to_owned()).collect(),
        };
        self.0.change(|state| state.faults.rejections.push(rejection));
    }

    /// Every topic is permitted again, at the next (re)subscription.
    pub fn permit_topics(&self) {
        self.0.change(|state| state.faults.rejections.clear());
    }

    /// Lets what was held back into the history.
    pub fn release_history(&self) {
        let now = self.0.running_ms();
        self.0.change(|state| {
            state.faults.knobs.hold_history = false;
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
        self.each_socket(Outbox::freeze_now);
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

    /// Sends these bytes on every socket, so many at a time, with a pause between.
    pub fn send_in_pieces(&self, bytes: &[u8], size: usize, pause: Duration) {
        self.each_socket(|socket| socket.put(Out::Pieces { bytes: bytes.to_vec(), size, pause }));
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
        self.send_text("{\"topicName\":\"v2.system.socket_closing\",\"eventBody\":{\"message\":\"Socket closing\"}}");
    }

    /// `v2.system.token_revoked` on every socket, and every token is dead.
    pub fn announce_token_revoked(&self) {
        self.revoke_tokens();
        self.send_text("{\"topicName\":\"v2.system.token_revoked\",\"eventBody\":{\"message\":\"Token revoked\"}}");
    }

    /// `v2.system.no_longer_subscribed` on every socket, whose channels lose their topics.
    pub fn announce_no_longer_subscribed(&self) {
        self.0.change(|state| {
            let ids: Vec<String> = state.channels.iter().map(|channel| channel.id.clone()).collect();
            for id in ids {
                if let Some(channel) = state.channels.find(&id) {
                    channel.topics.clear();
                }
            }
        });
        self.send_text(
            "{\"topicName\":\"v2.system.no_longer_subscribed\",\"eventBody\":{\"message\":\"No longer subscribed\"}}",
        );
    }

    /// Somebody else connects to every channel: whoever was connected is put out.
    pub fn take_over_channels(&self) {
        self.change_channels(|state, id| {
            if let Some(channel) = state.channels.find(id)
                && let Some(socket) = channel.socket.replace(Arc::new(Outbox::detached()))
            {
                socket.cut(Cut::Close);
            }
        });
    }

    /// Every channel is gone, as though others had pushed it out; its socket is told.
    pub fn evict_channels(&self) {
        self.change_channels(|state, id| {
            if let Some(channel) = state.channels.remove(id) {
                tell_gone(&channel);
            }
        });
    }

    /// Every channel is gone, and its socket is cut without a word.
    pub fn drop_channels(&self) {
        self.change_channels(|state, id| {
            if let Some(socket) = state.channels.remove(id).and_then(|channel| channel.socket) {
                socket.cut(Cut::Close);
            }
        });
    }

    fn change_channels(&self, mut change: impl FnMut(&mut State, &str)) {
        self.0.change(|state| {
            let ids: Vec<String> = state.channels.iter().map(|channel| channel.id.clone()).collect();
            ids.iter().for_each(|id| change(state, id));
        });
    }

    fn each_socket(&self, act: impl Fn(&Outbox)) {
        self.0.change(|state| state.channels.iter().filter_map(|c| c.socket.as_deref()).for_each(act));
    }
}
