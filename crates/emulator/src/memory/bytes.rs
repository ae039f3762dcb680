//! Bytes that record whether they were written.

/// A range of memory with one "was written" bit per byte.
pub(crate) struct CheckedBytes {
    data: Vec<u8>,
    written: Vec<u64>,
}

impl CheckedBytes {
    pub(crate) fn new(bytes: usize) -> Self {
        Self {
            data: vec![0; bytes],
            written: vec![0; bytes.div_ceil(64)],
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.data.len()
    }

    /// Makes it `bytes` long and unwritten, like a new one.
    pub(crate) fn reset(&mut self, bytes: usize) {
        self.data.resize(bytes, 0);
        self.written.clear();
        self.written.resize(bytes.div_ceil(64), 0);
    }

    /// Whether all `bytes` (1 to 16, aligned) at `offset` were written.
    #[inline]
    pub(crate) fn is_written(&self, offset: usize, bytes: usize) -> bool {
        let need = (1u64 << bytes) - 1;
        self.written[offset / 64] >> (offset % 64) & need == need
    }

    /// The little-endian value of `bytes` (1 to 16, aligned) at `offset`.
    #[inline]
    pub(crate) fn get(&self, offset: usize, bytes: usize) -> u128 {
        let d = &self.data[offset..offset + bytes];
        match bytes {
            1 => u128::from(d[0]),
            2 => u128::from(u16::from_le_bytes([d[0], d[1]])),
            4 => u128::from(u32::from_le_bytes([d[0], d[1], d[2], d[3]])),
            8 => u128::from(u64::from_le_bytes(first(d))),
            _ => u128::from_le_bytes(first(d)),
        }
    }

    /// Stores the low `bytes` (1 to 16, aligned) of `value`.
    #[inline]
    pub(crate) fn set(&mut self, offset: usize, bytes: usize, value: u128) {
        let raw = value.to_le_bytes();
        let target = &mut self.data[offset..offset + bytes];
        // Lengths are known to the compiler here, so there is no call per lane.
        match bytes {
            1 => target.copy_from_slice(&raw[..1]),
            2 => target.copy_from_slice(&raw[..2]),
            4 => target.copy_from_slice(&raw[..4]),
            8 => target.copy_from_slice(&raw[..8]),
            _ => target.copy_from_slice(&raw),
        }
        self.written[offset / 64] |= ((1u64 << bytes) - 1) << (offset % 64);
    }

    /// Stores any number of bytes at any offset.
    pub(crate) fn write(&mut self, offset: usize, source: &[u8]) {
        self.data[offset..offset + source.len()].copy_from_slice(source);
        self.mark(offset, source.len());
    }

    /// Stores the same byte everywhere.
    pub(crate) fn fill(&mut self, offset: usize, bytes: usize, value: u8) {
        self.data[offset..offset + bytes].fill(value);
        self.mark(offset, bytes);
    }

    fn mark(&mut self, offset: usize, bytes: usize) {
        let (mut at, end) = (offset, offset + bytes);
        while at < end {
            let count = (64 - at % 64).min(end - at);
            let bits = if count == 64 { !0 } else { (1 << count) - 1 };
            self.written[at / 64] |= bits << (at % 64);
            at += count;
        }
    }

    /// Copies the bytes; returns the offset of the first byte that was never written, if there is
    /// one.
    pub(crate) fn read(&self, offset: usize, target: &mut [u8]) -> Option<usize> {
        target.copy_from_slice(&self.data[offset..offset + target.len()]);
        (offset..offset + target.len()).find(|at| self.written[at / 64] >> (at % 64) & 1 == 0)
    }
}

#[inline(always)]
fn first<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[..N]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_every_size() {
        for bytes in [1, 2, 4, 8, 16] {
            let mut memory = CheckedBytes::new(256);
            for offset in (0..256).step_by(bytes) {
                let value = 0x0123_4567_89ab_cdef_0011_2233_4455_6677u128 ^ offset as u128;
                let value = if bytes == 16 {
                    value
                } else {
                    value & ((1 << (bytes * 8)) - 1)
                };
                assert!(!memory.is_written(offset, bytes));
                memory.set(offset, bytes, value);
                assert!(memory.is_written(offset, bytes));
                assert_eq!(memory.get(offset, bytes), value);
            }
        }
    }

    #[test]
    fn ranges_mark_exactly_their_bytes() {
        for (offset, count) in [(0, 0), (0, 1), (63, 2), (1, 64), (5, 130), (0, 200)] {
            let mut memory = CheckedBytes::new(200);
            memory.fill(offset, count, 7);
            for at in 0..200 {
                let inside = (offset..offset + count).contains(&at);
                assert_eq!(memory.is_written(at, 1), inside, "{offset} {count} {at}");
            }
            let mut out = vec![0; count];
            assert_eq!(memory.read(offset, &mut out), None);
            assert_eq!(out, vec![7; count]);
            if offset + count < 200 {
                let mut out = vec![0; count + 1];
                assert_eq!(memory.read(offset, &mut out), Some(offset + count));
            }
        }
    }
}
