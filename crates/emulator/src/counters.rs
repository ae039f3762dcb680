//! Counts of a launch.
use crate::op::InstructionClass;
use std::{fmt, str::FromStr};

/// Classes of [`InstructionClass`] in the order of its declaration.
pub const CLASSES: [InstructionClass; 10] = [
    InstructionClass::Integer,
    InstructionClass::Float,
    InstructionClass::Special,
    InstructionClass::Convert,
    InstructionClass::Move,
    InstructionClass::Predicate,
    InstructionClass::Memory,
    InstructionClass::Warp,
    InstructionClass::Matrix,
    InstructionClass::Control,
];

/// Counts of one launch. Instructions are PTX instructions, not those of a processor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Number of executed blocks.
    pub blocks: u64,
    /// Number of issued instructions, counted per warp.
    pub warp_instructions: u64,
    /// Number of instructions times participating lanes, by class in the order of [`CLASSES`].
    pub thread_instructions_by_class: [u64; 10],
    /// Number of bytes that lanes loaded from device memory.
    pub global_load_bytes: u64,
    /// Number of bytes that lanes stored to device memory.
    pub global_store_bytes: u64,
    /// Number of 32-byte sectors that these loads touch, counted per warp instruction.
    pub global_load_sectors: u64,
    /// Number of 32-byte sectors that these stores touch, counted per warp instruction.
    pub global_store_sectors: u64,
    /// Number of warp instructions that access device memory.
    pub global_requests: u64,
    /// Number of atomic operations on device memory, counted per lane.
    pub global_atomics: u64,
    /// Number of bytes that lanes accessed in shared memory.
    pub shared_bytes: u64,
    /// Number of passes over shared memory without bank conflicts.
    pub shared_passes_ideal: u64,
    /// Number of passes over shared memory with bank conflicts.
    pub shared_passes: u64,
    /// Number of multiply-adds in tensor-core instructions.
    pub tensor_multiply_adds: u64,
    /// Number of float operations per lane: a multiply-add of `fma` and `mad` counts two, other
    /// instructions count one.
    pub float_operations: u64,
}

impl Counters {
    /// Number of thread instructions of all classes.
    pub fn thread_instructions(&self) -> u64 {
        self.thread_instructions_by_class.iter().sum()
    }

    /// Number of thread instructions of one class.
    pub fn of(&self, class: InstructionClass) -> u64 {
        self.thread_instructions_by_class[class as usize]
    }

    /// Number of bytes that device memory moves, in whole sectors.
    pub fn global_bytes_moved(&self) -> u64 {
        32 * (self.global_load_sectors + self.global_store_sectors)
    }

    /// Number of additional passes over shared memory because of bank conflicts.
    pub fn bank_conflicts(&self) -> u64 {
        self.shared_passes - self.shared_passes_ideal
    }

    /// Adds the counts of another part of the launch.
    pub fn add(&mut self, other: &Counters) {
        let mut other = other.clone();
        for ((_, sum), (_, part)) in self.fields().into_iter().zip(other.fields()) {
            *sum += *part;
        }
    }

    /// Every count with its name.
    fn fields(&mut self) -> [(&'static str, &mut u64); 23] {
        let Counters {
            blocks,
            warp_instructions,
            thread_instructions_by_class,
            global_load_bytes,
            global_store_bytes,
            global_load_sectors,
            global_store_sectors,
            global_requests,
            global_atomics,
            shared_bytes,
            shared_passes_ideal,
            shared_passes,
            tensor_multiply_adds,
            float_operations,
        } = self;
        let [
            integer,
            float,
            special,
            convert,
            moves,
            predicate,
            memory,
            warp,
            matrix,
            control,
        ] = thread_instructions_by_class;
        [
            ("blocks", blocks),
            ("warp_instructions", warp_instructions),
            ("integer_instructions", integer),
            ("float_instructions", float),
            ("special_instructions", special),
            ("convert_instructions", convert),
            ("move_instructions", moves),
            ("predicate_instructions", predicate),
            ("memory_instructions", memory),
            ("warp_level_instructions", warp),
            ("matrix_instructions", matrix),
            ("control_instructions", control),
            ("global_load_bytes", global_load_bytes),
            ("global_store_bytes", global_store_bytes),
            ("global_load_sectors", global_load_sectors),
            ("global_store_sectors", global_store_sectors),
            ("global_requests", global_requests),
            ("global_atomics", global_atomics),
            ("shared_bytes", shared_bytes),
            ("shared_passes_ideal", shared_passes_ideal),
            ("shared_passes", shared_passes),
            ("tensor_multiply_adds", tensor_multiply_adds),
            ("float_operations", float_operations),
        ]
    }

    /// Counts the sectors of one warp access to device memory.
    pub(crate) fn count_sectors(
        &mut self,
        addresses: &[u64; 32],
        lanes: u32,
        bytes: u64,
        store: bool,
    ) {
        let (mut seen, mut count) = ([0u64; 32], 0usize);
        for lane in (0..32).filter(|lane| lanes >> lane & 1 == 1) {
            let sector = addresses[lane] / 32;
            // The last sectors are searched first, because neighbours share sectors.
            if !seen[..count].iter().rev().any(|known| *known == sector) {
                seen[count] = sector;
                count += 1;
            }
        }
        let asked = u64::from(lanes.count_ones()) * bytes;
        self.global_requests += 1;
        if store {
            self.global_store_bytes += asked;
            self.global_store_sectors += count as u64;
        } else {
            self.global_load_bytes += asked;
            self.global_load_sectors += count as u64;
        }
    }

    /// Counts the passes of one warp access to the 32 banks of 4 bytes: a pass serves a half-warp
    /// of 8-byte accesses or a quarter of 16-byte accesses, and each bank delivers one word.
    pub(crate) fn count_passes(&mut self, addresses: &[u64; 32], lanes: u32, bytes: u64) {
        self.shared_bytes += u64::from(lanes.count_ones()) * bytes;
        let group = match bytes {
            16 => 8,
            8 => 16,
            _ => 32,
        };
        for first in (0..32).step_by(group) {
            let part = lanes & (((1u64 << group) - 1) << first) as u32;
            if part == 0 {
                continue;
            }
            self.shared_passes_ideal += 1;
            self.shared_passes += u64::from(passes(addresses, part, bytes));
        }
    }
}

/// `name value` of every count, with tabs between them.
impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut copy = self.clone();
        let fields = copy.fields().map(|(name, value)| format!("{name} {value}"));
        f.write_str(&fields.join("\t"))
    }
}

/// Parses the output of [`Display`](fmt::Display); the error is the part that is missing or no
/// number.
impl FromStr for Counters {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut counters = Counters::default();
        let mut parts = text.split('\t');
        for (name, value) in counters.fields() {
            let part = parts.next().and_then(|part| part.strip_prefix(name));
            let number = part.and_then(|part| part.strip_prefix(' ')?.parse().ok());
            *value = number.ok_or_else(|| name.to_owned())?;
        }
        Ok(counters)
    }
}

/// Largest number of different words that any bank must deliver.
fn passes(addresses: &[u64; 32], lanes: u32, bytes: u64) -> u32 {
    let (mut words, mut count, mut load) = ([0u64; 32], 0usize, [0u8; 32]);
    for lane in (0..32).filter(|lane| lanes >> lane & 1 == 1) {
        for word in addresses[lane] / 4..(addresses[lane] + bytes).div_ceil(4) {
            if words[..count].iter().rev().any(|known| *known == word) {
                continue;
            }
            words[count.min(31)] = word;
            count = (count + 1).min(32);
            load[(word % 32) as usize] += 1;
        }
    }
    u32::from(load.into_iter().max().unwrap_or(0)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(f: impl Fn(u64) -> u64) -> [u64; 32] {
        std::array::from_fn(|lane| f(lane as u64))
    }

    fn sectors(f: impl Fn(u64) -> u64, bytes: u64) -> u64 {
        let mut counters = Counters::default();
        counters.count_sectors(&addresses(f), !0, bytes, false);
        counters.global_load_sectors
    }

    fn conflicts(f: impl Fn(u64) -> u64, bytes: u64) -> (u64, u64) {
        let mut counters = Counters::default();
        counters.count_passes(&addresses(f), !0, bytes);
        (counters.shared_passes_ideal, counters.shared_passes)
    }

    #[test]
    fn counts_are_read_as_they_were_written_and_added_one_by_one() {
        let mut counters = Counters::default();
        for (index, (_, value)) in counters.fields().into_iter().enumerate() {
            *value = 10 + index as u64;
        }
        let text = counters.to_string();
        assert!(
            text.starts_with("blocks 10\twarp_instructions 11\t"),
            "{text}"
        );
        assert_eq!(text.parse::<Counters>().unwrap(), counters);
        assert_eq!(
            "blocks 1\twarp".parse::<Counters>().unwrap_err(),
            "warp_instructions"
        );
        let before = counters.clone();
        counters.add(&before);
        assert_eq!(counters.blocks, 20);
        assert_eq!(counters.float_operations, 2 * before.float_operations);
        assert_eq!(counters.of(InstructionClass::Control), 2 * (10 + 11));
    }

    #[test]
    fn coalescing() {
        assert_eq!(sectors(|lane| lane * 4, 4), 4, "consecutive words");
        assert_eq!(sectors(|lane| lane * 16, 16), 16, "consecutive 16 bytes");
        assert_eq!(sectors(|lane| lane * 32, 4), 32, "one word of each sector");
        assert_eq!(sectors(|_| 64, 4), 1, "broadcast");
        assert_eq!(
            sectors(|lane| 128 - lane * 4 + 4, 4),
            5,
            "descending, off by a word"
        );
    }

    #[test]
    fn banks() {
        assert_eq!(conflicts(|lane| lane * 4, 4), (1, 1), "consecutive words");
        assert_eq!(conflicts(|lane| lane * 8, 4), (1, 2), "every other word");
        assert_eq!(conflicts(|lane| lane * 128, 4), (1, 32), "one bank");
        assert_eq!(conflicts(|_| 64, 4), (1, 1), "broadcast");
        assert_eq!(
            conflicts(|lane| lane * 16, 16),
            (4, 4),
            "consecutive 16 bytes"
        );
        assert_eq!(
            conflicts(|lane| lane * 128, 16),
            (4, 32),
            "16 bytes of the same banks"
        );
        assert_eq!(conflicts(|lane| lane * 2, 2), (1, 1), "half words");
    }
}
