//! The session's messages to the writer, in order. Messages wait here while the writer's queue is full.

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

    /// Whether every message was delivered: until then the history is not read.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Queues a message for the writer, in order.
    pub fn send(&mut self, message: WriterCommand) {
        self.waiting.push_back(message);
        self.deliver();
    }

    /// Delivers as many messages as the writer's queue has room for.
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

    /// Adds the wait for room in the queue, if a message is waiting.
    pub fn select<'a>(&'a self, select: &mut Select<'a>) {
        if !self.waiting.is_empty() {
            select.send(&self.to_writer);
        }
    }
}
