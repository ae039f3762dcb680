//! Ranges that read a prefix: the same as with a copy of it, for every reader, and sums over all
//! readers for the prefix.

use super::*;

/// Lengths of a prefix and of its readers.
type Family<'a> = (u32, &'a [u32]);

/// Prefixes around the sizes of tiles and blocks.
const FAMILIES: [Family<'_>; 9] = [
    (1, &[1, 3]),
    (15, &[17, 1, 16]),
    (16, &[2]),
    (17, &[64, 5]),
    (63, &[1, 66]),
    (64, &[1, 65]),
    (65, &[30, 1, 2]),
    (130, &[70, 5]),
    (3, &[]),
];

/// Each prefix with its readers behind it, and a range alone after each family.
fn ranges_of(families: &[Family<'_>]) -> Vec<Range> {
    let mut all = Vec::new();
    let mut start = 0;
    let mut next = |length: u32| {
        start += length;
        Range::rows(start - length, length)
    };
    for (prefix, readers) in families {
        let prefix = next(*prefix);
        all.push(prefix);
        all.extend(readers.iter().map(|&reader| next(reader).after(&prefix)));
        all.push(next(7));
    }
    all
}

fn case(ranges: Vec<Range>, sizes: (usize, usize, usize)) -> Case {
    let lengths: Vec<_> = ranges.iter().map(|r| (r.query_len, r.key_len)).collect();
    Case {
        ranges,
        ..Case::new(&lengths, sizes)
    }
}

#[test]
fn every_result_matches_the_oracle() {
    let cpu = Cpu::new(2).unwrap();
    for sizes in [(4, 2, 16), (3, 1, 20), (2, 2, 64), (1, 1, 1), (2, 1, 80)] {
        for window in [
            None,
            Some(1),
            Some(5),
            Some(16),
            Some(64),
            Some(70),
            Some(1000),
        ] {
            for softcap in [None, Some(1.5)] {
                let mut case = case(ranges_of(&FAMILIES), sizes);
                (case.window, case.softcap) = (window, softcap);
                case.compare(&cpu);
                case.of(DType::BF16).compare(&cpu);
            }
        }
    }
}

#[test]
fn cuda_matches_the_oracle_in_every_type() {
    let families = [FAMILIES[1], FAMILIES[3], FAMILIES[6]];
    for dtype in [DType::F32, DType::BF16] {
        for (sizes, window, softcap) in [
            ((4, 2, 16), None, None),
            ((2, 1, 20), Some(5), None),
            ((1, 1, 80), Some(64), Some(1.5)),
            ((2, 2, 33), Some(20), None),
            ((1, 1, 256), None, Some(3.0)),
        ] {
            let mut case = case(ranges_of(&families), sizes);
            (case.window, case.softcap) = (window, softcap);
            case.of(dtype).compare(cuda());
        }
    }
}

/// In generation, some keys of a range are in the cache already.
fn cached() -> Vec<Range> {
    let range = |query_start, query_len, key_start, key_len| Range {
        query_start,
        query_len,
        key_start,
        key_len,
        ..Range::default()
    };
    let prefix = range(0, 0, 0, 70);
    vec![
        prefix,
        range(0, 1, 70, 1).after(&prefix),
        range(1, 3, 71, 20).after(&prefix),
        range(4, 2, 91, 9),
        range(6, 66, 100, 140).after(&prefix),
    ]
}

#[test]
fn queries_at_the_end_of_a_cache_match() {
    for window in [None, Some(3), Some(80)] {
        let mut case = case(cached(), (4, 2, 16));
        case.window = window;
        case.compare(&Cpu::new(2).unwrap());
        let case = case.of(DType::BF16);
        case.compare(&Cpu::new(2).unwrap());
        case.compare(cuda());
    }
}

#[test]
fn bits_do_not_depend_on_threads() {
    for families in [&FAMILIES[..], &[(130, &[70, 5])], &[(17, &[64, 5, 90])]] {
        for (heads, kv_heads) in [(4, 2), (1, 1)] {
            for window in [None, Some(33)] {
                let mut case = case(ranges_of(families), (heads, kv_heads, 16));
                case.window = window;
                let one = case.run(&Cpu::new(1).unwrap());
                for threads in [2, 3, 16] {
                    assert_eq!(one, case.run(&Cpu::new(threads).unwrap()));
                }
            }
        }
    }
}

#[test]
fn a_reader_has_the_bits_that_a_copy_of_the_prefix_gives() {
    check_copies(&Cpu::new(1).unwrap(), DType::F32, &FAMILIES);
    check_copies(&Cpu::new(3).unwrap(), DType::BF16, &FAMILIES);
    for dtype in [DType::F32, DType::BF16] {
        check_copies(cuda(), dtype, &[FAMILIES[3], FAMILIES[6]]);
    }
}

fn check_copies<D: Attention>(device: &D, dtype: DType, families: &[Family<'_>]) {
    for window in [None, Some(1), Some(20), Some(66)] {
        let mut shared = case(ranges_of(families), (4, 2, 16)).of(dtype);
        shared.window = window;
        let results = shared.run(device);
        for range in &shared.ranges {
            let rows = |values: &[f32], heads: usize| {
                let of = |start: u32, len: u32| {
                    let row = heads * 16;
                    values[start as usize * row..(start + len) as usize * row].to_vec()
                };
                let prefix = of(range.prefix_start, range.prefix_len);
                [prefix, of(range.key_start, range.key_len)].concat()
            };
            let copy = Case {
                ranges: vec![Range::rows(0, range.keys())],
                q: rows(&shared.q, 4),
                dy: rows(&shared.dy, 4),
                k: rows(&shared.k, 2),
                v: rows(&shared.v, 2),
                ..shared.clone()
            };
            let parts = shared.parts(range);
            let alone = copy.run(device);
            // `y`, `lse` and `dq` of the rows behind the prefix.
            for index in 0..3 {
                let own = &results[index][parts[index].clone()];
                let alone = &alone[index][alone[index].len() - own.len()..];
                assert_eq!(own, alone, "{} of {range:?}, {window:?}", NAMES[index]);
            }
        }
    }
}

#[test]
fn readers_do_not_see_each_other() {
    for dtype in [DType::F32, DType::BF16] {
        check_isolation(&Cpu::new(2).unwrap(), dtype);
        check_isolation(cuda(), dtype);
    }
}

fn check_isolation<D: Attention>(device: &D, dtype: DType) {
    let before = case(ranges_of(&[(40, &[30, 50])]), (2, 1, 16)).of(dtype);
    let mut after = before.clone();
    let (first, second) = (before.ranges[1], before.ranges[2]);
    for values in [&mut after.q, &mut after.dy] {
        values[before.parts(&first)[0].clone()].fill(f32::NAN);
    }
    for values in [&mut after.k, &mut after.v] {
        values[before.parts(&first)[3].clone()].fill(f32::NAN);
    }
    let (expected, got) = (before.run(device), after.run(device));
    for ((name, expected), (got, part)) in NAMES
        .iter()
        .zip(expected)
        .zip(got.iter().zip(before.parts(&second)))
    {
        assert_eq!(expected[part.clone()], got[part], "{name}");
    }
    // The keys of the prefix get a gradient from every reader.
    for (result, part) in got[3..].iter().zip(&before.parts(&before.ranges[0])[3..]) {
        assert!(result[part.clone()].iter().all(|v| v.is_nan()));
    }
}

#[test]
fn readers_are_chained_in_order() {
    let cpu = Cpu::new(1).unwrap();
    let (a, b) = (Range::rows(0, 2), Range::rows(2, 3));
    let all = [
        a,
        b,
        Range::rows(5, 1).after(&b),
        Range::rows(6, 64).after(&a),
        Range::rows(70, 1).after(&b),
    ];
    let ranges = on(&cpu, &all);
    let family = |index| ranges.family(index).collect::<Vec<_>>();
    assert_eq!(family(0), [0, 3]);
    assert_eq!(family(1), [1, 2, 4]);
    let numbers = ranges.tensor().to_vec::<u32>().unwrap();
    let rows: Vec<&[u32]> = numbers.chunks_exact(7).take(5).collect();
    assert_eq!(rows[0], [0, 2, 0, 2, 0, 0, 3]);
    assert_eq!(rows[2], [5, 1, 5, 1, 2, 3, 4]);
    assert_eq!(rows[4], [70, 1, 70, 1, 2, 3, 0]);
    // Keys are seen by the queries of the readers as well.
    let keys = [[0, 0], [3, 0], [1, 0], [2, 0], [4, 0]];
    assert_eq!(ranges.key_tiles().as_slice(), keys);
}
