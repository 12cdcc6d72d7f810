//! Buffers for held frames, recycled: in steady state nothing is allocated.
//!
//! Four size classes keep what a frame is charged close to what it needs. Buffers in use and buffers kept for reuse
//! together never exceed the limit; buffers that a quiet period didn't need are given back a few at a time.

/// Bytes of a buffer by class. The last one takes the largest frame that a TAP can hand out: a 64 KiB super-packet with its
/// Ethernet header, our tag and a vnet header, with slack.
pub(super) const CLASSES: [usize; 4] = [256, 2048, 16 * 1024, 68 * 1024];
const LARGEST: usize = CLASSES.len() - 1;
/// Buffers freed in one call of [`Pool::trim`], so that it stays short.
const TRIM_BATCH: usize = 64;

/// The largest frame, vnet header included, that can be held.
pub(super) const MAX_FRAME: usize = CLASSES[LARGEST];

/// The memory that a frame of this length takes: its buffer and its entry.
pub(super) fn charge(length: usize) -> usize {
    CLASSES[class_of(length)] + size_of::<super::arena::Held>()
}

#[derive(Debug)]
pub(super) struct Pool {
    classes: [Class; CLASSES.len()],
    /// Bytes of all buffers that exist.
    allocated: usize,
    limit: usize,
}

#[derive(Debug, Default)]
struct Class {
    free: Vec<Box<[u8]>>,
    in_use: usize,
    /// The highest `in_use` since the last [`Pool::mark`].
    peak: usize,
}

impl Pool {
    /// `limit` in bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            classes: Default::default(),
            allocated: 0,
            limit,
        }
    }

    /// A buffer for reading: the largest, outside of the limit.
    pub(super) fn scratch() -> Box<[u8]> {
        vec![0; MAX_FRAME].into_boxed_slice()
    }

    /// A buffer that begins with the first `length` bytes of `scratch`. A large frame isn't copied: its buffer is
    /// exchanged for a fresh one. `None` when the limit is reached.
    pub(super) fn keep(&mut self, scratch: &mut Box<[u8]>, length: usize) -> Option<Box<[u8]>> {
        let class = class_of(length);
        let mut buffer = self.take(class)?;
        if class == LARGEST {
            std::mem::swap(scratch, &mut buffer);
        } else {
            buffer[..length].copy_from_slice(&scratch[..length]);
        }
        Some(buffer)
    }

    /// Takes back what [`Pool::keep`] gave.
    pub(super) fn give(&mut self, buffer: Box<[u8]>) {
        let class = &mut self.classes[class_of(buffer.len())];
        class.in_use -= 1;
        class.free.push(buffer);
    }

    /// Starts a new period for [`Pool::trim`].
    pub(super) fn mark(&mut self) {
        for class in &mut self.classes {
            class.peak = class.in_use;
        }
    }

    /// Frees some of the buffers that weren't needed since the last [`Pool::mark`].
    pub(super) fn trim(&mut self) {
        for (class, size) in self.classes.iter_mut().zip(CLASSES) {
            let spare = (class.in_use + class.free.len()).saturating_sub(class.peak);
            let freed = spare.min(TRIM_BATCH);
            class.free.truncate(class.free.len() - freed);
            self.allocated -= freed * size;
        }
    }

    /// Frees every buffer that is not in use.
    pub(super) fn clear(&mut self) {
        for (class, size) in self.classes.iter_mut().zip(CLASSES) {
            self.allocated -= class.free.len() * size;
            class.free = Vec::new();
        }
    }

    fn take(&mut self, class: usize) -> Option<Box<[u8]>> {
        let buffer = match self.classes[class].free.pop() {
            Some(buffer) => buffer,
            None => self.allocate(class)?,
        };
        let class = &mut self.classes[class];
        class.in_use += 1;
        class.peak = class.peak.max(class.in_use);
        Some(buffer)
    }

    /// Makes room, if it must, by freeing unused buffers of other classes.
    fn allocate(&mut self, class: usize) -> Option<Box<[u8]>> {
        let size = CLASSES[class];
        for other in (0..CLASSES.len()).rev() {
            while self.allocated + size > self.limit && self.classes[other].free.pop().is_some() {
                self.allocated -= CLASSES[other];
            }
        }
        if self.allocated + size > self.limit {
            return None;
        }
        self.allocated += size;
        Some(vec![0; size].into_boxed_slice())
    }
}

fn class_of(length: usize) -> usize {
    CLASSES.iter().position(|&size| length <= size).unwrap_or(LARGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_bytes_in_the_smallest_buffer_that_fits() {
        let mut pool = Pool::new(1 << 20);
        for length in [1, 256, 257, 2048, 2049, 16_384, 16_385, 65_565, MAX_FRAME] {
            let mut scratch = Pool::scratch();
            let bytes: Vec<u8> = (0..length).map(|i| (i * 31 + length) as u8).collect();
            scratch[..length].copy_from_slice(&bytes);
            let buffer = pool.keep(&mut scratch, length).expect("the limit is far");
            assert_eq!(&buffer[..length], &bytes[..]);
            assert_eq!(
                scratch.len(),
                MAX_FRAME,
                "the scratch buffer can read any frame again"
            );
            assert!(
                buffer.len() <= 8 * length.max(32),
                "{length} bytes in {}",
                buffer.len()
            );
            pool.give(buffer);
        }
    }

    #[test]
    fn recycles_and_never_exceeds_its_limit() {
        let mut pool = Pool::new(10 * CLASSES[1]);
        let mut scratch = Pool::scratch();
        let held: Vec<_> = (0..10)
            .map(|_| pool.keep(&mut scratch, 2000))
            .map(Option::unwrap)
            .collect();
        assert_eq!(
            pool.keep(&mut scratch, 10),
            None,
            "a small frame is over the limit as well"
        );
        let addresses: Vec<_> = held.iter().map(|buffer| buffer.as_ptr()).collect();
        held.into_iter().for_each(|buffer| pool.give(buffer));
        let again = pool.keep(&mut scratch, 1500).expect("everything was given back");
        assert!(
            addresses.contains(&again.as_ptr()),
            "the buffer is a recycled one"
        );
        let other = pool
            .keep(&mut scratch, 16_000)
            .expect("unused buffers make room for another class");
        assert!(pool.allocated <= pool.limit);
        assert_eq!(other.len(), CLASSES[2]);
    }

    #[test]
    fn gives_back_what_a_quiet_period_did_not_need() {
        let mut pool = Pool::new(1 << 20);
        let mut scratch = Pool::scratch();
        let held: Vec<_> = (0..8)
            .map(|_| pool.keep(&mut scratch, 2000))
            .map(Option::unwrap)
            .collect();
        held.into_iter().for_each(|buffer| pool.give(buffer));
        pool.trim();
        assert_eq!(pool.allocated, 8 * CLASSES[1], "the period's peak is kept");
        pool.mark();
        let one = pool.keep(&mut scratch, 2000).expect("there are free ones");
        pool.trim();
        assert_eq!(pool.allocated, CLASSES[1]);
        pool.give(one);
        pool.clear();
        assert_eq!(pool.allocated, 0);
    }
}
