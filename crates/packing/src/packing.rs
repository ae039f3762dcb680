//! The result: the pieces of sequences that share each pack.

use serde::{Deserialize, Serialize};

use crate::{
    Batch, Cut, Cuts, Layout, MAX_CAPACITY, PackError, Piece, SegmentError, Units,
    packer::{computed_tokens, share},
    random::{Random, Stream},
};

/// Pieces of all packs, one after the other, and the end of each pack.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Storage {
    pieces: Vec<Piece>,
    ends: Vec<u32>,
}

impl Storage {
    pub(crate) fn with_capacity(pieces: usize, packs: usize) -> Self {
        Self {
            pieces: Vec::with_capacity(pieces),
            ends: Vec::with_capacity(packs),
        }
    }

    #[inline]
    pub(crate) fn extend(&mut self, pieces: impl Iterator<Item = Piece>) {
        self.pieces.extend(pieces);
    }

    #[inline]
    pub(crate) fn end_pack(&mut self) {
        // `check` rejects more pieces than this can hold.
        self.ends.push(self.pieces.len() as u32);
    }

    pub(crate) fn push(&mut self, pack: &[Piece]) {
        self.pieces.extend_from_slice(pack);
        self.end_pack();
    }

    /// Number of packs.
    pub(crate) fn packs(&self) -> u32 {
        self.ends.len() as u32
    }

    /// Checks that the ends fit `u32`.
    pub(crate) fn check(&self) -> Result<(), PackError> {
        let pieces = self.pieces.len() as u64;
        match u32::try_from(pieces) {
            Ok(_) => Ok(()),
            Err(_) => Err(PackError::TooManyPieces { pieces }),
        }
    }

    fn pack(&self, index: usize) -> &[Piece] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.pieces[start as usize..self.ends[index] as usize]
    }

    pub(crate) fn shuffle(&mut self, random: &mut Random) {
        let mut order: Vec<u32> = (0..self.ends.len() as u32).collect();
        random.shuffle(&mut order);
        let mut shuffled = Self::with_capacity(self.pieces.len(), self.ends.len());
        for index in order {
            shuffled.push(self.pack(index as usize));
        }
        *self = shuffled;
    }

    /// Sequences whose first piece is not all of them, in ascending order if the pieces are.
    pub(crate) fn cut_sequences(&self, lengths: &[u32]) -> Vec<Cut> {
        let first = self.pieces.iter().filter(|piece| piece.start == 0);
        first
            .map(|piece| (piece, lengths[piece.sequence as usize]))
            .filter(|(piece, length)| piece.length < *length)
            .map(|(piece, length)| Cut {
                sequence: piece.sequence,
                length,
            })
            .collect()
    }
}

/// Packs of pieces of sequences, and a record of everything that is not packed in full.
///
/// It takes 12 bytes per piece and 4 per pack. Serialized as `layout`, `capacity`, `lower_bound`,
/// `ends` (where each pack ends among the pieces), `pieces` (`[sequence, start, length]`) and
/// `cuts`; checked when read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct Packing {
    layout: Layout,
    capacity: u64,
    lower_bound: u64,
    storage: Storage,
    cuts: Cuts,
}

impl Packing {
    pub(crate) fn from_parts(
        layout: Layout,
        capacity: u64,
        lower_bound: u64,
        storage: Storage,
        cuts: Cuts,
    ) -> Self {
        Self {
            layout,
            capacity,
            lower_bound,
            storage,
            cuts,
        }
    }

    /// Number of packs.
    pub fn len(&self) -> usize {
        self.storage.ends.len()
    }
    /// Whether there are no packs.
    pub fn is_empty(&self) -> bool {
        self.storage.ends.is_empty()
    }
    /// Contents of a pack.
    ///
    /// # Panics
    /// If there is no such pack.
    pub fn pack(&self, index: usize) -> &[Piece] {
        self.storage.pack(index)
    }
    /// Every pack in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[Piece]> {
        (0..self.len()).map(|index| self.pack(index))
    }
    /// Shape in which the model gets the packs.
    pub fn layout(&self) -> Layout {
        self.layout
    }
    /// Capacity of the packs.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }
    /// No packing by the same rules has fewer packs; a packing with this many is optimal.
    pub fn lower_bound(&self) -> u64 {
        self.lower_bound
    }
    /// Sequences that are not packed in full and in one piece.
    pub fn cuts(&self) -> &Cuts {
        &self.cuts
    }
    /// Pieces of all packs.
    pub fn pieces(&self) -> &[Piece] {
        &self.storage.pieces
    }
    /// Number of tokens in all packs.
    pub fn tokens(&self) -> u64 {
        self.pieces().iter().map(|p| u64::from(p.length)).sum()
    }
    /// Number of tokens that the model computes for all packs, padding included.
    pub fn computed_tokens(&self) -> u128 {
        let packs = self.iter();
        packs
            .map(|pack| {
                let lengths = pack.iter().map(|piece| (piece.length, 1));
                computed_tokens(self.layout, self.capacity, lengths)
            })
            .sum()
    }
    /// Real tokens as a share of computed ones; 1 if there are none.
    pub fn efficiency(&self) -> f64 {
        share(self.tokens().into(), self.computed_tokens())
    }

    /// Checks that exactly these lengths were packed: every sequence once, in full or in [`Cuts`].
    /// A stored packing that passes fits the sequences, whatever happened to its file. It takes
    /// O(sequences + pieces), plus a sort of the pieces of sequences that were cut.
    ///
    /// # Errors
    /// Returns the first sequence whose length differs, or the number of sequences if that differs;
    /// or a piece that overlaps another piece of its sequence or leaves a gap.
    pub fn check_lengths(&self, lengths: &[u32]) -> Result<(), PackError> {
        let cuts = &self.cuts;
        let whole = cuts
            .truncated
            .iter()
            .chain(&cuts.dropped)
            .chain(&cuts.split);
        let named = self.pieces().iter().map(|piece| piece.sequence);
        let named = named.chain(whole.clone().map(|cut| cut.sequence));
        let last = named.chain(cuts.empty.iter().copied()).max();
        // Every sequence is somewhere, so the last one gives their number.
        let packed = last.map_or(0, |last| u64::from(last) + 1);
        if packed != lengths.len() as u64 {
            let given = lengths.len() as u64;
            return Err(PackError::OtherCount { packed, given });
        }

        let mut ends = vec![0u32; lengths.len()];
        let mut further = Vec::new();
        for piece in self.pieces() {
            let end = &mut ends[piece.sequence as usize];
            match (piece.start, *end) {
                (0, 0) => *end = piece.length,
                _ => further.push(*piece),
            }
        }
        further.sort_unstable_by_key(|piece| (piece.sequence, piece.start));
        for piece in further {
            let (sequence, start) = (piece.sequence, piece.start);
            let expected = ends[sequence as usize];
            let end = start.checked_add(piece.length);
            let Some(end) = end.filter(|_| start == expected) else {
                return Err(PackError::StoredPiece {
                    sequence,
                    start,
                    expected,
                });
            };
            ends[sequence as usize] = end;
        }
        for cut in whole {
            let end = &mut ends[cut.sequence as usize];
            *end = cut.length.max(*end);
        }
        match (0..lengths.len()).find(|&index| ends[index] != lengths[index]) {
            None => Ok(()),
            Some(index) => Err(PackError::OtherLength {
                sequence: index as u32,
                packed: ends[index],
                given: lengths[index],
            }),
        }
    }

    /// Order of the packs in an epoch: it is the same for the same seed and epoch, and differs
    /// between epochs. Nothing is packed again.
    pub fn epoch_order(&self, seed: u64, epoch: u64) -> Vec<u32> {
        let mut order: Vec<u32> = (0..self.len() as u32).collect();
        Random::stream(seed, Stream::Epoch(epoch)).shuffle(&mut order);
        order
    }

    /// Input of the model for one pack; `padding_token` fills the rows of the padded layout.
    ///
    /// # Panics
    /// If there is no such pack, or `units` have other lengths than those that were packed
    /// ([`Packing::check_lengths`]).
    pub fn batch(
        &self,
        index: usize,
        units: &(impl Units + ?Sized),
        padding_token: u32,
    ) -> Result<Batch, SegmentError> {
        match self.layout {
            Layout::Packed | Layout::PaddingFree => Batch::packed(units, self.pack(index)),
            Layout::Padded => Batch::padded(units, self.pack(index), padding_token),
        }
    }
}

/// A [`Packing`] as it is stored.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    layout: Layout,
    capacity: u64,
    lower_bound: u64,
    ends: Vec<u32>,
    pieces: Vec<Piece>,
    cuts: Cuts,
}

impl From<Packing> for Stored {
    fn from(packing: Packing) -> Self {
        Self {
            layout: packing.layout,
            capacity: packing.capacity,
            lower_bound: packing.lower_bound,
            ends: packing.storage.ends,
            pieces: packing.storage.pieces,
            cuts: packing.cuts,
        }
    }
}

impl TryFrom<Stored> for Packing {
    type Error = PackError;

    fn try_from(stored: Stored) -> Result<Self, PackError> {
        let capacity = stored.capacity;
        if capacity == 0 || capacity > MAX_CAPACITY {
            return Err(PackError::Capacity { capacity });
        }
        let (pieces, ends) = (stored.pieces, stored.ends);
        let mut start = 0;
        for (index, &value) in ends.iter().enumerate() {
            let last = index + 1 == ends.len();
            let end = value as usize;
            if end <= start || end > pieces.len() || (last && end < pieces.len()) {
                return Err(PackError::StoredOffsets { index, value });
            }
            start = end;
        }
        if ends.is_empty() && !pieces.is_empty() {
            return Err(PackError::StoredOffsets { index: 0, value: 0 });
        }
        let storage = Storage { pieces, ends };
        for pack in 0..storage.ends.len() {
            let pieces = storage.pack(pack);
            let tokens = pieces.iter().map(|p| u64::from(p.length)).sum();
            let longest = pieces.iter().map(|p| u64::from(p.length)).max();
            let fits = match stored.layout {
                Layout::Packed => tokens <= capacity,
                Layout::PaddingFree | Layout::Padded => longest.is_some_and(|l| l <= capacity),
            };
            if !fits || pieces.iter().any(|p| p.length == 0) {
                return Err(PackError::StoredPack { pack, tokens });
            }
        }
        if stored.lower_bound > storage.ends.len() as u64 {
            return Err(PackError::StoredBound {
                lower_bound: stored.lower_bound,
                packs: storage.ends.len(),
            });
        }
        Ok(Self::from_parts(
            stored.layout,
            capacity,
            stored.lower_bound,
            storage,
            stored.cuts,
        ))
    }
}
