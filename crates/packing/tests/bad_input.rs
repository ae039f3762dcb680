//! Each error names the value and its place.

use tightrope_packing::{Algorithm, Histogram, Overlong, PackError, Packer, Packing};

fn error(packer: &Packer, lengths: &[u32]) -> PackError {
    packer.pack(lengths).unwrap_err()
}

#[test]
fn limits_are_checked() {
    let best_fit = Packer::new(Algorithm::BestFit, 10);
    for capacity in [0, (1 << 32) + 1] {
        let packer = Packer {
            capacity,
            ..best_fit.clone()
        };
        assert_eq!(error(&packer, &[1]), PackError::Capacity { capacity });
        let histogram = Histogram::from_counts(&[1]).unwrap();
        let counted = packer.pack_histogram(&histogram);
        assert_eq!(counted.unwrap_err(), PackError::Capacity { capacity });
    }
    let zero = |name, packer| assert_eq!(error(&packer, &[1]), PackError::Zero { name });
    let depth = Some(0);
    zero(
        "depth",
        Packer {
            depth,
            ..best_fit.clone()
        },
    );
    zero(
        "window",
        Packer {
            window: 0,
            ..best_fit.clone()
        },
    );
    zero(
        "batch_size",
        Packer {
            batch_size: 0,
            ..best_fit.clone()
        },
    );
}

#[test]
fn one_is_not_many() {
    let one = PackError::OverlongCount {
        length: 1,
        count: 1,
        capacity: 0,
    };
    let one = one.to_string();
    assert!(one.starts_with("1 sequence has 1 token, "), "{one}");
    let two = PackError::OverlongCount {
        length: 2,
        count: 2,
        capacity: 1,
    };
    let two = two.to_string();
    assert!(two.starts_with("2 sequences have 2 tokens, "), "{two}");
    let stored = PackError::OtherCount {
        packed: 1,
        given: 2,
    }
    .to_string();
    assert!(stored.contains("of 1 sequence,"), "{stored}");
}

#[test]
fn an_overlong_sequence_is_named() {
    let packer = Packer {
        overlong: Overlong::Error,
        ..Packer::new(Algorithm::BestFit, 10)
    };
    let (index, length, capacity) = (2, 11, 10);
    let expected = PackError::Overlong {
        index,
        length,
        capacity,
    };
    assert_eq!(error(&packer, &[10, 0, 11, 12]), expected);
    assert_eq!(
        expected.to_string(),
        "sequence 2 has 11 tokens, more than the capacity of 10"
    );
    // Wrapped cuts them anyway.
    let algorithm = Algorithm::Wrapped;
    assert!(
        Packer {
            algorithm,
            ..packer
        }
        .pack(&[11])
        .is_ok()
    );
}

#[test]
fn what_is_too_large_is_refused() {
    let nnlshp = |capacity, depth| Packer {
        depth: Some(depth),
        ..Packer::new(Algorithm::Nnlshp, capacity)
    };
    let (capacity, depth) = (512, 8);
    let expected = PackError::TooManyStrategies { capacity, depth };
    assert_eq!(error(&nnlshp(512, 8), &[1]), expected);
    let (capacity, depth) = (5000, 2);
    let expected = PackError::TooManyStrategies { capacity, depth };
    assert_eq!(error(&nnlshp(5000, 2), &[1]), expected);

    let sequences = 1 << 40;
    let histogram = Histogram::from_pairs([(3, sequences)]).unwrap();
    let streaming = Packer::new(Algorithm::Streaming, 10).pack_histogram(&histogram);
    let algorithm = "streaming";
    let expected = PackError::TooManySequences {
        algorithm,
        sequences,
    };
    assert_eq!(streaming.unwrap_err(), expected);
    let best_fit = Packer::new(Algorithm::BestFit, 10).pack_histogram(&histogram);
    assert_eq!(best_fit.unwrap().packs, sequences.div_ceil(3));

    let split = Packer {
        overlong: Overlong::Split,
        ..Packer::new(Algorithm::BestFit, 1)
    };
    let histogram = Histogram::from_pairs([(u32::MAX, 1 << 31)]).unwrap();
    assert!(split.pack_histogram(&histogram).is_ok());
}

/// Twelve bytes of lengths must not lead to gigabytes of pieces.
#[test]
fn a_few_huge_lengths_are_counted_but_not_cut_one_by_one() {
    let lengths = [u32::MAX; 3];
    let histogram = Histogram::from_lengths(lengths).unwrap();
    let tokens = 3 * u64::from(u32::MAX);
    for capacity in [1, 8, 64] {
        let wrapped = Packer::new(Algorithm::Wrapped, capacity);
        let split = Packer {
            overlong: Overlong::Split,
            ..Packer::new(Algorithm::BestFit, capacity)
        };
        for packer in [&wrapped, &split] {
            let refused = error(packer, &lengths);
            assert!(
                matches!(refused, PackError::TooManyCuts { .. }),
                "{refused}"
            );
            let counted = packer.pack_histogram(&histogram).unwrap();
            assert!(counted.packs - tokens / capacity <= 3);
        }
        let limited = Packer {
            depth: Some(2),
            ..wrapped
        };
        let refused = limited.pack_histogram(&histogram).unwrap_err();
        assert!(
            matches!(refused, PackError::TooManyCuts { .. }),
            "{refused}"
        );
    }
}

#[test]
fn packs_that_are_counted_are_those_that_are_made() {
    let lengths: Vec<u32> = (1..300).map(|i| i * i % 97 + 1).collect();
    let histogram = Histogram::from_lengths(lengths.iter().copied()).unwrap();
    for capacity in [1, 7, 64, 1 << 20] {
        let wrapped = Packer::new(Algorithm::Wrapped, capacity);
        let (made, counted) = (wrapped.pack(&lengths), wrapped.pack_histogram(&histogram));
        let (made, counted) = (made.unwrap(), counted.unwrap());
        assert_eq!(made.len() as u64, counted.packs);
        assert_eq!(made.computed_tokens(), counted.computed_tokens);
    }
}

#[test]
fn a_damaged_packing_is_refused() {
    let load = |ends: &str, pieces: &str| {
        let cuts = r#"{"empty":[],"dropped":[],"truncated":[],"split":[]}"#;
        let json = format!(
            r#"{{"layout":"packed","capacity":10,"lower_bound":1,"ends":{ends},"pieces":{pieces},"cuts":{cuts}}}"#
        );
        serde_json::from_str::<Packing>(&json).map_err(|e| e.to_string())
    };
    let two = "[[0,0,6],[1,0,6]]";
    assert_eq!(load("[1,2]", two).unwrap().len(), 2);
    for ends in ["[1]", "[0,2]", "[2,1]", "[1,2,3]", "[]"] {
        assert!(load(ends, two).unwrap_err().contains("offset"), "{ends}");
    }
    assert!(
        load("[2]", two)
            .unwrap_err()
            .contains("pack 0 with 12 tokens")
    );
    assert!(load("[1]", "[[0,0,0]]").unwrap_err().contains("limits"));
    assert!(load("[]", "[]").unwrap_err().contains("lower bound of 1"));
}

#[test]
fn a_packing_of_other_sequences_is_refused() {
    let packer = Packer {
        seed: Some(1),
        overlong: Overlong::Split,
        ..Packer::new(Algorithm::BestFit, 4)
    };
    let packing = packer.pack(&[3, 0, 9]).unwrap();
    assert_eq!(packing.check_lengths(&[3, 0, 9]), Ok(()));
    let length = |sequence, packed, given| PackError::OtherLength {
        sequence,
        packed,
        given,
    };
    let count = |given| PackError::OtherCount { packed: 3, given };
    for (lengths, expected) in [
        (&[2, 0, 9][..], length(0, 3, 2)),
        (&[3, 5, 9], length(1, 0, 5)),
        (&[3, 0, 8], length(2, 9, 8)),
        (&[3, 0], count(2)),
        (&[3, 0, 9, 0], count(4)),
    ] {
        assert_eq!(packing.check_lengths(lengths), Err(expected));
    }
    let said = length(2, 9, 8).to_string();
    assert_eq!(
        said,
        "sequence 2 had 9 tokens when it was packed and has 8 now"
    );
    // Edited by hand: a piece twice, a gap, an end beyond 32 bits.
    let json = serde_json::to_string(&packing).unwrap();
    for (from, to, start, expected) in [
        ("[2,4,4]", "[2,0,4]", 0, 4),
        ("[2,4,4]", "[2,5,4]", 5, 4),
        ("[2,8,1]", "[2,4294967295,1]", u32::MAX, 8),
    ] {
        let edited = json.replace(from, to);
        assert_ne!(json, edited);
        let edited: Packing = serde_json::from_str(&edited).unwrap();
        let expected = PackError::StoredPiece {
            sequence: 2,
            start,
            expected,
        };
        assert_eq!(edited.check_lengths(&[3, 0, 9]), Err(expected));
    }
}
