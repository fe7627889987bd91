//! Streams for the queues, from the one that is wanted to the one that is closed; and how the end
//! of one is the end of all.

use block_io::IoError;

use super::bring_up::Step;
use super::queue::Stream;
use super::{Controller, QueueIndex, TRANSFER_MAX};
use crate::error::ConnectionError;
use crate::host::connection::{Connection, ConnectionOptions};

impl Controller {
    /// A queue that needs a stream to the controller; each is named once.
    pub fn next_stream_wanted(&mut self) -> Option<QueueIndex> {
        let index = self.queues.iter().position(|queue| queue.stream == Stream::Wanted)?;
        self.queues[index].stream = Stream::Opening;
        Some(index as QueueIndex)
    }

    /// The stream for `queue` is established.
    pub fn stream_established(&mut self, queue: QueueIndex) {
        let commands_max = self.depth(queue) - 1;
        let options = ConnectionOptions {
            digests: self.options.digests,
            commands_max,
            transfer_max: TRANSFER_MAX.max(self.data_max()),
            // What an admin command waits for is not worth another admin command.
            abort_time: self.options.abort_time.filter(|_| queue != 0),
        };
        let mut connection = Connection::new(&self.pool, options, self.now);
        if self.step == Step::Over {
            connection.end(ConnectionError::ShutDown);
        } else if self.lacks_secure_channel(queue) {
            let what = "authentication has generated a key for TLS, and the stream has none";
            connection.end(self.incompatible(what.to_owned()));
        }
        let place = &mut self.queues[usize::from(queue)];
        place.stream = Stream::Open;
        place.connection = Some(connection);
    }

    /// The stream for `queue` could not be established.
    pub fn stream_failed(&mut self, queue: QueueIndex, error: IoError) {
        self.queues[usize::from(queue)].stream = Stream::NotWanted;
        let address = &self.options.address;
        self.lose(ConnectionError::Unreachable(address.clone(), error));
    }

    /// The connection of `queue`, for its bytes to be moved. Absent without a stream.
    pub fn connection(&mut self, queue: QueueIndex) -> Option<&mut Connection> {
        self.queues.get_mut(usize::from(queue))?.connection.as_mut()
    }

    /// The driver has closed the stream of `queue`, and no operation on it is in flight.
    pub fn stream_closed(&mut self, queue: QueueIndex) {
        if let Some(connection) = self.connection(queue) {
            connection.transport_closed();
            self.take_finished(queue);
        }
        if self.reopens(queue) {
            return;
        }
        let place = &mut self.queues[usize::from(queue)];
        if let Some(connection) = place.connection.take() {
            let error = connection.error().cloned().unwrap_or(ConnectionError::Closed);
            self.lose(error);
        }
        self.queues[usize::from(queue)].stream = Stream::NotWanted;
    }

    /// Gives the association up at once, whatever it is doing. Its streams are then to be closed.
    pub fn abandon(&mut self, reason: ConnectionError) {
        self.lose(reason);
    }

    pub(super) fn notice_ended_connections(&mut self) {
        if self.step == Step::Reopen {
            return;
        }
        let ended = self.queues.iter().filter_map(|queue| queue.connection.as_ref());
        let error = ended.filter(|connection| connection.is_over()).find_map(Connection::error);
        if let Some(error) = error.cloned() {
            self.lose(error);
        }
    }

    /// The association is over, for this reason unless there was one before.
    pub(super) fn lose(&mut self, error: ConnectionError) {
        let error = self.put_authentication_first(error);
        if self.step != Step::Over {
            self.step = Step::Over;
            self.error = Some(error.clone());
        }
        for queue in &mut self.queues {
            if queue.stream == Stream::Wanted {
                queue.stream = Stream::NotWanted;
            }
            if let Some(connection) = &mut queue.connection
                && !connection.is_over()
            {
                connection.end(error.clone());
            }
            if let Some(requests) = &mut queue.requests {
                requests.lose();
            }
            if let Some(commands) = &mut queue.commands {
                commands.lose();
            }
        }
    }
}
