//! Streams and events: they track, as vector clocks, which operations the host has ordered.
//!
//! Operations run immediately when they are issued, one after another. The model checks the
//! guarantees of the program: two operations that no stream, event or synchronisation orders must
//! not touch the same bytes, unless both read.
use crate::EmulatorError;
use crate::memory::{MOST_OPERATIONS, MOST_STREAMS, Order};

/// For each stream, its last operation that is known to be finished.
type Clock = Vec<u32>;

fn join(into: &mut Clock, from: &Clock) {
    if into.len() < from.len() {
        into.resize(from.len(), 0);
    }
    for (known, other) in into.iter_mut().zip(from) {
        *known = (*known).max(*other);
    }
}

#[derive(Clone, Debug, Default)]
struct Stream {
    clock: Clock,
    issued: u32,
    /// Whether the stream is ordered with the default stream; streams are, unless they are made
    /// non-blocking.
    is_blocking: bool,
    is_live: bool,
}

/// A recorded event: the operations that were finished when it was reached.
#[derive(Clone, Debug, Default)]
pub struct Event(Clock);

/// The streams of a device. Stream 0 is the default stream.
#[derive(Debug)]
pub struct Streams {
    streams: Vec<Stream>,
    host: Clock,
}

impl Default for Streams {
    fn default() -> Self {
        let first = Stream {
            is_blocking: true,
            is_live: true,
            ..Stream::default()
        };
        Self {
            streams: vec![first],
            host: Clock::new(),
        }
    }
}

impl Streams {
    /// Creates the default stream, without operations.
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates a stream; the number of a destroyed stream may be reused.
    pub fn create(&mut self, is_blocking: bool) -> Result<usize, EmulatorError> {
        if let Some(free) = self.streams.iter().position(|stream| !stream.is_live) {
            let issued = self.streams[free].issued;
            self.streams[free] = Stream {
                clock: Clock::new(),
                issued,
                is_blocking,
                is_live: true,
            };
            return Ok(free);
        }
        if self.streams.len() >= MOST_STREAMS {
            return Err(EmulatorError::TooMany("streams"));
        }
        self.streams.push(Stream {
            is_blocking,
            is_live: true,
            ..Stream::default()
        });
        Ok(self.streams.len() - 1)
    }

    /// Destroys a stream; its issued operations continue.
    pub fn destroy(&mut self, stream: usize) {
        if stream != 0
            && let Some(stream) = self.streams.get_mut(stream)
        {
            stream.is_live = false;
        }
    }

    /// Issues the next operation of `stream`.
    pub fn issue(&mut self, stream: usize) -> Result<Order, EmulatorError> {
        let Some(own) = self.streams.get(stream) else {
            return Err(EmulatorError::TooMany("streams"));
        };
        if own.issued >= MOST_OPERATIONS {
            return Err(EmulatorError::TooMany("operations in one stream"));
        }
        let mut finished = own.clock.clone();
        join(&mut finished, &self.host);
        if stream == 0 {
            for other in self.streams.iter().filter(|other| other.is_blocking) {
                join(&mut finished, &other.clock);
            }
        } else if own.is_blocking {
            join(&mut finished, &self.streams[0].clock);
        }
        let own = &mut self.streams[stream];
        own.issued += 1;
        let order = Order::new(stream, own.issued, finished.clone());
        own.clock = finished;
        if own.clock.len() <= stream {
            own.clock.resize(stream + 1, 0);
        }
        own.clock[stream] = own.issued;
        Ok(order)
    }

    /// Records an event that is reached when everything issued to `stream` so far is finished.
    pub fn record(&self, stream: usize) -> Event {
        Event(
            self.streams
                .get(stream)
                .map(|stream| stream.clock.clone())
                .unwrap_or_default(),
        )
    }

    /// Orders everything that is issued to `stream` from now on after the event.
    pub fn wait(&mut self, stream: usize, event: &Event) {
        if let Some(stream) = self.streams.get_mut(stream) {
            join(&mut stream.clock, &event.0);
        }
    }

    /// The host waits for a stream.
    pub fn synchronize(&mut self, stream: usize) {
        let event = self.record(stream);
        self.synchronize_event(&event);
    }

    /// The host waits for an event.
    pub fn synchronize_event(&mut self, event: &Event) {
        join(&mut self.host, &event.0);
    }

    /// The host waits for everything.
    pub fn synchronize_all(&mut self) {
        for stream in 0..self.streams.len() {
            self.synchronize(stream);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DeviceMemory, FindingKind};

    /// A write in one stream and a read in another, with an operation between them.
    fn write_then_read(
        blocking: bool,
        between: impl Fn(&mut Streams, usize, usize),
    ) -> Option<FindingKind> {
        let (mut streams, mut memory) = (Streams::new(), DeviceMemory::new());
        let (a, b) = (
            streams.create(blocking).unwrap(),
            streams.create(blocking).unwrap(),
        );
        let data = memory.allocate(100, "data").unwrap();
        memory
            .write(data, &[1; 100], &streams.issue(a).unwrap())
            .unwrap();
        between(&mut streams, a, b);
        let order = streams.issue(b).unwrap();
        memory
            .read(data, &mut [0; 100], &order)
            .err()
            .map(|finding| finding.kind)
    }

    #[test]
    fn streams_are_ordered_by_what_the_host_says() {
        let nothing = |_: &mut Streams, _, _| {};
        assert_eq!(
            write_then_read(false, nothing),
            Some(FindingKind::MissingDependency)
        );
        assert_eq!(
            write_then_read(true, nothing),
            Some(FindingKind::MissingDependency)
        );
        let event = |streams: &mut Streams, a, b| {
            let event = streams.record(a);
            streams.wait(b, &event);
        };
        assert_eq!(write_then_read(false, event), None);
        let early = |streams: &mut Streams, a, b| {
            let event = Event::default();
            let _ = streams.record(a);
            streams.wait(b, &event);
        };
        assert_eq!(
            write_then_read(false, early),
            Some(FindingKind::MissingDependency)
        );
        assert_eq!(
            write_then_read(false, |streams, a, _| streams.synchronize(a)),
            None
        );
        assert_eq!(
            write_then_read(false, |streams, _, b| streams.synchronize(b)),
            Some(FindingKind::MissingDependency)
        );
        assert_eq!(
            write_then_read(false, |streams, _, _| streams.synchronize_all()),
            None
        );
    }

    #[test]
    fn the_default_stream_orders_blocking_streams_only() {
        let through_default = |streams: &mut Streams, _, _| drop(streams.issue(0).unwrap());
        assert_eq!(write_then_read(true, through_default), None);
        assert_eq!(
            write_then_read(false, through_default),
            Some(FindingKind::MissingDependency)
        );
    }

    #[test]
    fn memory_in_use_is_not_freed() {
        let (mut streams, mut memory) = (Streams::new(), DeviceMemory::new());
        let (a, b) = (
            streams.create(false).unwrap(),
            streams.create(false).unwrap(),
        );
        let data = memory.allocate(16, "data").unwrap();
        memory
            .write(data, &[1; 16], &streams.issue(a).unwrap())
            .unwrap();
        let order = streams.issue(b).unwrap();
        let finding = memory.free(data, Some(&order)).unwrap_err();
        assert_eq!(finding.kind, FindingKind::MissingDependency);
        let order = streams.issue(a).unwrap();
        memory.free(data, Some(&order)).unwrap();
        let finding = memory.read(data, &mut [0; 4], &order).unwrap_err();
        assert_eq!(finding.kind, FindingKind::UseAfterFree);
    }
}
