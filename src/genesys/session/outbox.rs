//! What the session gives to the writer, in order; what finds no room in the writer's queue waits here.

use std::collections::VecDeque;

use crossbeam_channel::{Select, Sender, TrySendError};

use crate::message::WriterCommand;

pub(super) struct Outbox {
    to_writer: Sender<WriterCommand>,
    waiting: VecDeque<WriterCommand>,
}

impl Outbox {
    pub fn new(to_writer: Sender<WriterCommand>) -> Self {
        Self { to_writer, waiting: VecDeque::new() }
    }

    /// Whether the writer has been given everything: the history is not read while it has not.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Gives the writer something, in order.
    pub fn send(&mut self, message: WriterCommand) {
        self.waiting.push_back(message);
        self.deliver();
    }

    /// Delivers what there is room for.
    pub fn deliver(&mut self) {
        while let Some(message) = self.waiting.pop_front() {
            match self.to_writer.try_send(message) {
                Ok(()) => {}
                Err(TrySendError::Full(message)) => {
                    self.waiting.push_front(message);
                    return;
                }
                // The writer is gone: the program is about to stop.
                Err(TrySendError::Disconnected(_)) => return,
            }
        }
    }

    /// Adds the wait for room, where something waits for it.
    pub fn select<'a>(&'a self, select: &mut Select<'a>) {
        if !self.waiting.is_empty() {
            select.send(&self.to_writer);
        }
    }
}
