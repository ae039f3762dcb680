//! Properties that hold for every input.

use std::collections::BTreeSet;

use proptest::prelude::*;
use tightrope_packing::{
    Algorithm, Batch, Histogram, IGNORED, Layout, Overlong, Packer, Packing, Piece, Segments,
    Sequence, Stream,
};

fn lengths() -> impl Strategy<Value = Vec<u32>> {
    let short = prop::collection::vec(0u32..40, 0..120);
    let long = prop::collection::vec(0u32..4_000_000, 0..40);
    let equal = (1u32..40, 0usize..200).prop_map(|(length, count)| vec![length; count]);
    prop_oneof![short, long, equal]
}

prop_compose! {
    fn packer(algorithms: &'static [Algorithm])(
        algorithm in prop::sample::select(algorithms),
        capacity in prop_oneof![1u64..64, 1_000_000u64..3_000_000, Just(1 << 32)],
        depth in prop::option::of(1u32..6),
        batch_size in 1u32..9,
        window in 1usize..9,
        overlong in prop::sample::select(&[Overlong::Truncate, Overlong::Split, Overlong::Drop]),
        seed in prop::option::of(any::<u64>()),
    ) -> Packer {
        Packer { algorithm, capacity, depth, batch_size, window, overlong, seed, improve_ms: 0 }
    }
}

/// All algorithms but NNLSHP, whose cost grows with the capacity and which has a separate test.
const MOST: &[Algorithm] = &[
    Algorithm::BestFit,
    Algorithm::FirstFit,
    Algorithm::Spfhp,
    Algorithm::Lpfhp,
    Algorithm::Streaming,
    Algorithm::Wrapped,
    Algorithm::PaddingFree,
    Algorithm::Padded,
    Algorithm::Bucketed,
];

/// Whether splitting these lengths by the capacity would make billions of pieces.
fn too_many_pieces(packer: &Packer, lengths: &[u32]) -> bool {
    let cuts = packer.overlong == Overlong::Split || packer.algorithm == Algorithm::Wrapped;
    let tokens: u64 = lengths.iter().map(|&l| u64::from(l)).sum();
    cuts && tokens / packer.capacity > 100_000
}

/// Checks that every sequence is in exactly one place in full, or accounted for, and that every
/// limit is kept.
fn check(packer: &Packer, lengths: &[u32], packing: &Packing) -> Result<(), TestCaseError> {
    let depth = packer.effective_depth().map_or(usize::MAX, |d| d as usize);
    for pack in packing.iter() {
        let tokens: u64 = pack.iter().map(|p| u64::from(p.length)).sum();
        prop_assert!(!pack.is_empty() && pack.len() <= depth);
        prop_assert!(packing.layout() != Layout::Packed || tokens <= packer.capacity);
    }
    let mut pieces = packing.pieces().to_vec();
    pieces.sort_by_key(|p| (p.sequence, p.start));
    let cuts = packing.cuts();
    let of = |list: &[tightrope_packing::Cut]| -> BTreeSet<(u32, u32)> {
        list.iter().map(|c| (c.sequence, c.length)).collect()
    };
    let (truncated, split, dropped) = (of(&cuts.truncated), of(&cuts.split), of(&cuts.dropped));
    let empty: BTreeSet<u32> = cuts.empty.iter().copied().collect();
    for (index, &length) in lengths.iter().enumerate() {
        let index = index as u32;
        let of_it: Vec<&Piece> = pieces.iter().filter(|p| p.sequence == index).collect();
        let mut end = 0;
        for piece in &of_it {
            prop_assert!(piece.length > 0);
            prop_assert_eq!(piece.start, end);
            end += piece.length;
        }
        let key = (index, length);
        prop_assert_eq!(empty.contains(&index), length == 0);
        prop_assert_eq!(split.contains(&key), of_it.len() > 1);
        prop_assert_eq!(of_it.is_empty(), length == 0 || dropped.contains(&key));
        prop_assert_eq!(!of_it.is_empty() && end < length, truncated.contains(&key));
        prop_assert!(!truncated.contains(&key) || u64::from(end) == packer.capacity);
    }
    let listed = cuts.empty.len() + cuts.truncated.len() + cuts.split.len() + cuts.dropped.len();
    prop_assert_eq!(
        listed,
        empty.len() + truncated.len() + split.len() + dropped.len()
    );
    let all: u64 = lengths.iter().map(|&l| u64::from(l)).sum();
    let lost = cuts.counts(packer.capacity).lost_tokens;
    prop_assert_eq!(packing.tokens() + lost, all);
    Ok(())
}

proptest! {
    #[test]
    fn everything_is_packed_once_within_limits(packer in packer(MOST), lengths in lengths()) {
        prop_assume!(!too_many_pieces(&packer, &lengths));
        let packing = packer.pack(&lengths).unwrap();
        check(&packer, &lengths, &packing)?;
        prop_assert_eq!(&packing, &packer.pack(&lengths).unwrap(), "the same again");
        let json = serde_json::to_string(&packing).unwrap();
        let stored = serde_json::from_str::<Packing>(&json).unwrap();
        prop_assert_eq!(&packing, &stored);
        prop_assert_eq!(stored.check_lengths(&lengths), Ok(()));
        for index in 0..lengths.len() {
            let mut other = lengths.clone();
            other[index] += 1;
            prop_assert!(stored.check_lengths(&other).is_err());
        }
        let longer = [&lengths[..], &[1]].concat();
        prop_assert!(stored.check_lengths(&longer).is_err());

        let histogram = Histogram::from_lengths(lengths.iter().copied()).unwrap();
        let counted = packer.pack_histogram(&histogram).unwrap();
        prop_assert_eq!(counted.tokens, packing.tokens());
        let capacity = packer.capacity;
        if packer.algorithm != Algorithm::Wrapped {
            prop_assert_eq!(counted.cuts, packing.cuts().counts(capacity));
        }
        prop_assert!(counted.lower_bound <= packing.len() as u64);
        if packer.algorithm != Algorithm::Wrapped {
            prop_assert_eq!(counted.lower_bound, packing.lower_bound());
        }
        if let Some(strategies) = counted.strategies {
            prop_assert_eq!(counted.packs, packing.len() as u64);
            prop_assert_eq!(counted.computed_tokens, packing.computed_tokens());
            prop_assert_eq!(strategies.histogram().unwrap().tokens(), counted.tokens);
        }
    }

    #[test]
    fn nnlshp_too(
        lengths in prop::collection::vec(0u32..40, 0..120),
        capacity in 1u64..33,
        depth in 1u32..4,
        seed in prop::option::of(any::<u64>()),
    ) {
        let depth = Some(depth);
        let packer = Packer { depth, seed, ..Packer::new(Algorithm::Nnlshp, capacity) };
        check(&packer, &lengths, &packer.pack(&lengths).unwrap())?;
    }

    /// The seed decides the places of sequences and never the number of packs; nor does the order
    /// of the input, if the algorithm works on the histogram.
    #[test]
    fn counts_do_not_depend_on_order(
        packer in packer(&[
            Algorithm::BestFit, Algorithm::FirstFit, Algorithm::Spfhp, Algorithm::Lpfhp,
            Algorithm::Bucketed,
        ]),
        (lengths, shuffled) in lengths().prop_flat_map(|l| (Just(l.clone()), Just(l).prop_shuffle())),
    ) {
        prop_assume!(!too_many_pieces(&packer, &lengths));
        let one = packer.pack(&lengths).unwrap();
        let other = packer.pack(&shuffled).unwrap();
        prop_assert_eq!(one.len(), other.len());
        let unseeded = Packer { seed: None, ..packer };
        prop_assert_eq!(one.len(), unseeded.pack(&lengths).unwrap().len());
    }

    /// First-fit decreasing, sequence by sequence, as the textbook has it.
    #[test]
    fn first_fit_is_first_fit(
        lengths in prop::collection::vec(1u32..50, 0..150),
        capacity in 49u32..120,
        depth in prop::option::of(1u32..6),
    ) {
        let mut sorted = lengths.clone();
        sorted.sort_by(|a, b| b.cmp(a));
        let depth_or_all = depth.map_or(usize::MAX, |d| d as usize);
        let mut packs: Vec<Vec<u32>> = Vec::new();
        for &length in &sorted {
            let fits = |p: &&mut Vec<u32>| {
                p.iter().sum::<u32>() + length <= capacity && p.len() < depth_or_all
            };
            match packs.iter_mut().find(fits) {
                Some(pack) => pack.push(length),
                None => packs.push(vec![length]),
            }
        }
        let packer = Packer { depth, ..Packer::new(Algorithm::FirstFit, capacity.into()) };
        let mut packed: Vec<Vec<u32>> = packer.pack(&lengths).unwrap().iter()
            .map(|pack| pack.iter().map(|p| p.length).collect())
            .collect();
        packs.sort();
        packed.sort();
        prop_assert_eq!(packs, packed);
    }

    /// Best-fit decreasing, sequence by sequence, equally full packs first-in-first-out.
    #[test]
    fn best_fit_is_best_fit(
        lengths in prop::collection::vec(1u32..50, 0..150),
        capacity in 49u32..120,
        depth in prop::option::of(1u32..6),
    ) {
        let mut sorted = lengths.clone();
        sorted.sort_by(|a, b| b.cmp(a));
        let depth_or_all = depth.map_or(usize::MAX, |d| d as usize);
        let mut packs: Vec<(usize, Vec<u32>)> = Vec::new();
        for (time, &length) in sorted.iter().enumerate() {
            let room = |p: &Vec<u32>| capacity - p.iter().sum::<u32>();
            let fits = |p: &&mut (usize, Vec<u32>)| room(&p.1) >= length && p.1.len() < depth_or_all;
            match packs.iter_mut().filter(fits).min_by_key(|p| (room(&p.1), p.0)) {
                Some(pack) => {
                    pack.0 = time;
                    pack.1.push(length);
                }
                None => packs.push((time, vec![length])),
            }
        }
        let packer = Packer { depth, ..Packer::new(Algorithm::BestFit, capacity.into()) };
        let mut packed: Vec<Vec<u32>> = packer.pack(&lengths).unwrap().iter()
            .map(|pack| pack.iter().map(|p| p.length).collect())
            .collect();
        let mut packs: Vec<Vec<u32>> = packs.into_iter().map(|p| p.1).collect();
        packs.sort();
        packed.sort();
        prop_assert_eq!(packs, packed);
    }

    /// `FFD ≤ 11/9·OPT + 6/9`, with packs that were full when they were cut up for OPT.
    #[test]
    fn first_fit_decreasing_keeps_its_guarantee(
        cuts in prop::collection::vec(prop::collection::btree_set(1u32..100, 0..8), 1..40),
    ) {
        let mut lengths = Vec::new();
        for cuts in &cuts {
            let ends = cuts.iter().copied().chain([100]);
            lengths.extend(ends.scan(0, |start, end| Some(end - std::mem::replace(start, end))));
        }
        let packs = Packer::new(Algorithm::FirstFit, 100).pack(&lengths).unwrap().len();
        prop_assert!(9 * packs <= 11 * cuts.len() + 6, "{packs} for {}", cuts.len());
    }

    #[test]
    fn a_stream_keeps_its_window_and_can_be_resumed(
        lengths in prop::collection::vec(1u32..=50, 0..200),
        depth in prop::option::of(1u32..6),
        window in 1usize..8,
        stop in 0usize..200,
    ) {
        let mut stream = Stream::new(50, depth, window).unwrap();
        let mut packs = Vec::new();
        for (index, &length) in lengths.iter().enumerate() {
            if index == stop {
                let state = serde_json::to_string(&stream).unwrap();
                stream = serde_json::from_str(&state).unwrap();
            }
            let piece = Piece { sequence: index as u32, start: 0, length };
            packs.extend(stream.push(piece).unwrap());
            prop_assert!(stream.open_packs() <= window);
        }
        packs.extend(stream.finish());
        let packer = Packer { depth, window, ..Packer::new(Algorithm::Streaming, 50) };
        let at_once = packer.pack(&lengths).unwrap();
        prop_assert_eq!(packs, at_once.iter().map(<[_]>::to_vec).collect::<Vec<_>>());
    }

    #[test]
    fn segments_there_and_back(lengths in prop::collection::vec(1u32..50, 0..20)) {
        let ends = lengths.iter().scan(0, |end, l| { *end += l; Some(*end) });
        let offsets: Vec<u32> = [0].into_iter().chain(ends).collect();
        let segments = Segments::from_cu_seqlens(&offsets).unwrap();
        prop_assert_eq!(segments.cu_seqlens(), offsets);
        let positions = segments.positions();
        prop_assert_eq!(&Segments::from_position_ids(&positions).unwrap(), &segments);
        prop_assert_eq!(segments.padding_tokens(), 0);
    }

    /// Each target is the next token of the same sequence, or none.
    #[test]
    fn no_target_crosses_a_boundary(
        packer in packer(MOST),
        lengths in prop::collection::vec(0u32..40, 0..30),
    ) {
        // A token encodes its sequence and place.
        let token = |sequence: u32, place: u32| sequence * 1000 + place;
        let sequences: Vec<Sequence> = lengths.iter().enumerate().map(|(sequence, &length)| {
            let tokens: Vec<u32> = (0..length).map(|p| token(sequence as u32, p)).collect();
            let labels: Vec<i64> = tokens.iter().map(|&t| t.into()).collect();
            Sequence::from_labels(tokens, &labels).unwrap()
        }).collect();
        let packing = packer.pack(&lengths).unwrap();
        let mut trained = 0;
        for index in 0..packing.len() {
            let batch = packing.batch(index, &sequences, 999_999).unwrap();
            let padded = packing.layout() == Layout::Padded;
            prop_assert!(padded || batch.real_tokens() == batch.len());
            for segment in batch.segments().as_slice() {
                for at in segment.start..segment.start + segment.length {
                    let last = at + 1 == segment.start + segment.length;
                    let expected = match segment.sequence {
                        Some(_) if !last => batch.tokens()[at] as i32 + 1,
                        _ => IGNORED,
                    };
                    prop_assert_eq!(batch.targets()[at], expected);
                    let of = (batch.tokens()[at] / 1000) as usize;
                    prop_assert!(segment.sequence.is_none_or(|s| s == of));
                }
            }
            trained += batch.trained_tokens();
        }
        // Each piece loses one target, which is that of its last token.
        prop_assert_eq!(trained as u64, packing.tokens() - packing.pieces().len() as u64);
    }
}

#[test]
fn an_epoch_is_a_permutation_that_seed_and_epoch_determine() {
    let packing = Packer::new(Algorithm::BestFit, 10).pack(&[7; 100]).unwrap();
    let order = packing.epoch_order(1, 2);
    let mut sorted = order.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (0..100).collect::<Vec<u32>>());
    assert_eq!(order, packing.epoch_order(1, 2));
    assert_ne!(order, packing.epoch_order(1, 3));
    assert_ne!(order, packing.epoch_order(2, 2));
    assert!(Batch::packed(&[], &[]).unwrap().is_empty());
}
