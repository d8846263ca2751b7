//! Protocols that answer each command by itself, in order: a frame is as many commands, written at once.

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::sync::Arc;

use crate::failure::Failure;
use crate::measurement::Measurement;
use crate::records::Records;
use crate::target::{Connection, Nanos};
use crate::workload::{Operation, Source};

/// How commands and replies look.
pub trait Commands {
    /// Append the command of an operation.
    fn encode(operation: &Operation, records: &Records, out: &mut Vec<u8>);

    /// Check the reply at the start of the input; the bytes that it takes, or `None` if it has not come whole.
    fn check_reply(input: &[u8], operation: &Operation, records: &Records) -> Result<Option<usize>, Failure>;
}

/// A connection.
pub struct Pipeline<C> {
    records: Arc<Records>,
    frame: usize,
    running: VecDeque<Operation>,
    /// When each frame was due, and how many of its operations are not answered yet, of how many.
    frames: VecDeque<(Nanos, u32, u32)>,
    commands: PhantomData<C>,
}

impl<C> Pipeline<C> {
    /// With this many operations per frame.
    pub fn new(records: Arc<Records>, frame: usize) -> Self {
        Self {
            records,
            frame,
            running: VecDeque::new(),
            frames: VecDeque::new(),
            commands: PhantomData,
        }
    }
}

impl<C: Commands> Connection for Pipeline<C> {
    fn send(&mut self, source: &mut Source, due: Nanos, out: &mut Vec<u8>) -> u32 {
        let mut count = 0;
        for operation in source.take(self.frame) {
            C::encode(&operation, &self.records, out);
            self.running.push_back(operation);
            count += 1;
        }
        if count > 0 {
            self.frames.push_back((due, count, count));
        }
        count
    }

    fn receive(&mut self, input: &[u8], _: &mut Vec<u8>, measurement: &mut Measurement) -> Result<usize, Failure> {
        let mut done = 0;
        while done < input.len() {
            let operation = self
                .running
                .front()
                .ok_or_else(|| Failure::check("a reply to no command"))?;
            let Some(length) = C::check_reply(&input[done..], operation, &self.records)? else {
                break;
            };
            done += length;
            self.running.pop_front();
            if let Some((due, left, count)) = self.frames.front_mut() {
                *left -= 1;
                if *left == 0 {
                    measurement.answered(*due, *count);
                    self.frames.pop_front();
                }
            }
        }
        Ok(done)
    }

    fn in_flight(&self) -> usize {
        self.frames.len()
    }

    fn uncertified(&self) -> Option<u32> {
        None
    }
}
