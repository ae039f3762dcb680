//! Attention against the f64 oracle, over awkward ranges, windows, softcaps and thread counts.

mod arguments;
mod prefix;

use super::*;
use tightrope_device::Cpu;
use tightrope_testkit::{
    Random, assert_close, cuda, oracle::attention as oracle, relative_distance, rounded, tensor,
    unit, widen,
};

#[derive(Clone)]
struct Case {
    dtype: DType,
    ranges: Vec<Range>,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    window: Option<usize>,
    softcap: Option<f32>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    dy: Vec<f32>,
}

/// `y`, `lse`, `dq`, `dk`, `dv`.
type Results = [Vec<f32>; 5];
const NAMES: [&str; 5] = ["y", "lse", "dq", "dk", "dv"];

/// Ranges on a device.
fn on<D: Device>(device: &D, ranges: &[Range]) -> Ranges<D> {
    let mut on_device = Ranges::empty(device).unwrap();
    on_device.set(ranges.iter().copied()).unwrap();
    on_device
}

/// Ranges of `(queries, keys)` one after the other.
fn ranges(lengths: &[(u32, u32)]) -> Vec<Range> {
    let (mut query_start, mut key_start) = (0, 0);
    lengths
        .iter()
        .map(|&(query_len, key_len)| {
            let range = Range {
                query_start,
                query_len,
                key_start,
                key_len,
                ..Range::default()
            };
            query_start += query_len;
            key_start += key_len;
            range
        })
        .collect()
}

impl Case {
    fn new(lengths: &[(u32, u32)], (heads, kv_heads, head_dim): (usize, usize, usize)) -> Self {
        let mut random = Random::new((heads * 100 + head_dim) as u64);
        let queries: u32 = lengths.iter().map(|l| l.0).sum();
        let keys: u32 = lengths.iter().map(|l| l.1).sum();
        let (queries, keys) = (
            queries as usize * heads * head_dim,
            keys as usize * kv_heads * head_dim,
        );
        Self {
            dtype: DType::F32,
            ranges: ranges(lengths),
            heads,
            kv_heads,
            head_dim,
            window: None,
            softcap: None,
            q: random.normal(queries, 1.0),
            k: random.normal(keys, 1.0),
            v: random.normal(keys, 1.0),
            dy: random.normal(queries, 1.0),
        }
    }

    /// The same with numbers of another type.
    fn of(mut self, dtype: DType) -> Self {
        for values in [&mut self.q, &mut self.k, &mut self.v, &mut self.dy] {
            *values = rounded(values, dtype);
        }
        Self { dtype, ..self }
    }

    fn scale(&self) -> f32 {
        (self.head_dim as f32).powf(-0.5)
    }

    fn run<D: Attention>(&self, device: &D) -> Results {
        let of = |dtype, values: &[f32]| tensor(device, dtype, &[values.len()], values);
        let nan = |len: usize| of(self.dtype, &vec![f32::NAN; len]);
        let nan_f32 = |len: usize| of(DType::F32, &vec![f32::NAN; len]);
        let ranges = on(device, &self.ranges);
        let config = Config {
            ranges: &ranges,
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            scale: self.scale(),
            window: self.window,
            softcap: self.softcap,
        };
        let rows = self.q.len() / self.head_dim;
        let [q, k, v, dy] = [&self.q, &self.k, &self.v, &self.dy].map(|x| of(self.dtype, x));
        let (mut y, mut lse, mut delta) = (nan(q.len()), nan_f32(rows), nan_f32(rows));
        let (mut dq, mut dk, mut dv) = (nan(q.len()), nan(k.len()), nan(k.len()));
        let forward = Forward {
            q: q.view(),
            k: k.view(),
            v: v.view(),
            y: y.view_mut(),
            lse: lse.view_mut(),
            config,
        };
        device
            .attention_forward(forward.checked().unwrap())
            .unwrap();
        let backward = Backward {
            dy: dy.view(),
            y: y.view(),
            lse: lse.view(),
            q: q.view(),
            k: k.view(),
            v: v.view(),
            delta: delta.view_mut(),
            dq: dq.view_mut(),
            dk: dk.view_mut(),
            dv: dv.view_mut(),
            config,
        };
        device
            .attention_backward(backward.checked().unwrap())
            .unwrap();
        [y, lse, dq, dk, dv].map(|t| t.to_f32_vec().unwrap())
    }

    /// The rows of one range, as slices of the five results.
    fn parts(&self, range: &Range) -> [std::ops::Range<usize>; 5] {
        let part = |start: u32, len: u32, width: usize| {
            start as usize * width..(start + len) as usize * width
        };
        let queries = |width| part(range.query_start, range.query_len, width);
        let keys = part(
            range.key_start,
            range.key_len,
            self.kv_heads * self.head_dim,
        );
        let width = self.heads * self.head_dim;
        [
            queries(width),
            queries(self.heads),
            queries(width),
            keys.clone(),
            keys,
        ]
    }

    /// Results of the oracle for every range.
    fn expected(&self) -> [Vec<f64>; 5] {
        let (queries, keys) = (self.q.len(), self.k.len());
        let rows = queries / self.head_dim;
        let mut whole = [queries, rows, queries, keys, keys].map(|len| vec![f64::NAN; len]);
        let width = self.kv_heads * self.head_dim;
        for range in &self.ranges {
            let of = |start: u32, len: u32| start as usize..(start + len) as usize;
            let keys = oracle::Keys {
                prefix: of(range.prefix_start, range.prefix_len),
                own: of(range.key_start, range.key_len),
            };
            let options = oracle::Options {
                queries: range.query_len as usize,
                keys: keys.count(),
                heads: self.heads,
                kv_heads: self.kv_heads,
                head_dim: self.head_dim,
                scale: self.scale().into(),
                window: self.window,
                softcap: self.softcap.map(f64::from),
            };
            let parts = self.parts(range);
            let [q, dy] = [&self.q, &self.dy].map(|x| widen(&x[parts[0].clone()]));
            let [k, v] = [&self.k, &self.v].map(|x| widen(&keys.copy(x, width)));
            let forward = oracle::forward(&q, &k, &v, options);
            let backward = oracle::backward(&dy, &q, &k, &v, options);
            let of_queries = [forward.y, forward.lse, backward.dq];
            for ((whole, part), values) in whole.iter_mut().zip(&parts).zip(of_queries) {
                whole[part.clone()].copy_from_slice(&values);
            }
            for (whole, gradients) in whole[3..].iter_mut().zip([backward.dk, backward.dv]) {
                whole[parts[3].clone()].fill(0.0);
                keys.add(&gradients, whole, width);
            }
        }
        whole
    }

    #[track_caller]
    fn compare<D: Attention>(&self, device: &D) {
        let (got, expected) = (self.run(device), self.expected());
        for ((name, got), expected) in NAMES.iter().zip(&got).zip(&expected) {
            if self.dtype == DType::F32 || *name == "lse" {
                assert_close(name, got, expected, 1e-5, 1e-5);
            } else {
                // Probabilities, their gradients, `y` in `delta` and the result are each rounded.
                let distance = relative_distance(got, expected);
                let bound = 4.0 * unit(self.dtype) + 1e-5;
                assert!(distance <= bound, "{name}: {distance:e} > {bound:e}");
            }
        }
    }
}

#[test]
fn every_result_matches_the_oracle() {
    let cpu = Cpu::new(2).unwrap();
    let lengths = [
        (1, 1),
        (63, 63),
        (2, 2),
        (0, 0),
        (64, 64),
        (65, 65),
        (17, 17),
        (130, 130),
    ];
    for sizes in [(4, 2, 16), (3, 1, 20), (2, 2, 64), (1, 1, 1), (2, 1, 80)] {
        for window in [None, Some(1), Some(5), Some(64), Some(70), Some(1000)] {
            for softcap in [None, Some(1.5)] {
                let mut case = Case::new(&lengths, sizes);
                (case.window, case.softcap) = (window, softcap);
                case.compare(&cpu);
                case.of(DType::BF16).compare(&cpu);
            }
        }
    }
}

#[test]
fn cuda_matches_the_oracle_in_every_type() {
    let lengths = [
        (1, 1),
        (63, 63),
        (0, 0),
        (66, 66),
        (17, 17),
        (4, 70),
        (0, 3),
    ];
    for dtype in [DType::F32, DType::BF16] {
        for (sizes, window, softcap) in [
            ((4, 2, 16), None, None),
            ((2, 1, 20), Some(5), None),
            ((1, 1, 80), Some(64), Some(1.5)),
            ((2, 2, 33), Some(1), None),
            ((1, 1, 256), None, Some(3.0)),
        ] {
            let mut case = Case::new(&lengths, sizes);
            (case.window, case.softcap) = (window, softcap);
            case.of(dtype).compare(cuda());
        }
    }
}

#[test]
fn other_head_sizes_match() {
    let cpu = Cpu::new(2).unwrap();
    for head_dim in [8, 24, 32, 96, 128, 256] {
        let case = Case::new(&[(70, 70), (9, 9)], (2, 1, head_dim));
        case.compare(&cpu);
        case.of(DType::BF16).compare(&cpu);
    }
}

#[test]
fn queries_at_the_end_of_a_cache_match() {
    for dtype in [DType::F32, DType::BF16] {
        check_cache(&Cpu::new(2).unwrap(), dtype);
    }
    check_cache(cuda(), DType::BF16);
}

fn check_cache<D: Attention>(device: &D, dtype: DType) {
    for window in [None, Some(3), Some(66)] {
        let mut case = Case::new(
            &[(1, 77), (5, 130), (64, 65), (1, 1), (70, 200), (0, 9)],
            (4, 2, 16),
        );
        case.window = window;
        case.of(dtype).compare(device);
    }
}

#[test]
fn bits_do_not_depend_on_threads() {
    for lengths in [&[(200, 200)][..], &[(5, 5), (130, 130), (70, 70), (1, 40)]] {
        for (heads, kv_heads) in [(4, 2), (1, 1)] {
            let case = Case::new(lengths, (heads, kv_heads, 16));
            let one = case.run(&Cpu::new(1).unwrap());
            for threads in [2, 3] {
                assert_eq!(one, case.run(&Cpu::new(threads).unwrap()));
            }
        }
    }
}

#[test]
fn a_range_has_the_same_bits_wherever_it_stands() {
    for dtype in [DType::F32, DType::BF16] {
        check_place(&Cpu::new(2).unwrap(), dtype);
        check_place(cuda(), dtype);
    }
}

fn check_place<D: Attention>(device: &D, dtype: DType) {
    let lengths = [(37, 37), (100, 100), (3, 3), (64, 80)];
    let mut packed = Case::new(&lengths, (4, 2, 16)).of(dtype);
    packed.window = Some(50);
    let whole = packed.run(device);
    for (index, range) in packed.ranges.iter().enumerate() {
        let parts = packed.parts(range);
        let alone = Case {
            ranges: ranges(&lengths[index..=index]),
            q: packed.q[parts[0].clone()].to_vec(),
            dy: packed.dy[parts[0].clone()].to_vec(),
            k: packed.k[parts[3].clone()].to_vec(),
            v: packed.v[parts[3].clone()].to_vec(),
            ..packed.clone()
        };
        for ((name, alone), (whole, part)) in NAMES
            .iter()
            .zip(alone.run(device))
            .zip(whole.iter().zip(parts))
        {
            assert_eq!(alone, whole[part], "{name} of range {index}");
        }
    }
}

#[test]
fn a_window_as_long_as_the_range_changes_no_bit() {
    for dtype in [DType::F32, DType::BF16] {
        check_window(&Cpu::new(2).unwrap(), dtype);
    }
    check_window(cuda(), DType::BF16);
}

fn check_window<D: Attention>(device: &D, dtype: DType) {
    let mut case = Case::new(&[(130, 130)], (2, 1, 32)).of(dtype);
    let open = case.run(device);
    case.window = Some(130);
    assert_eq!(open, case.run(device));
}

#[test]
fn a_nan_stays_in_its_range_and_is_not_hidden() {
    for dtype in [DType::F32, DType::BF16] {
        check_nan(&Cpu::new(2).unwrap(), dtype);
        check_nan(cuda(), dtype);
    }
}

fn check_nan<D: Attention>(device: &D, dtype: DType) {
    let mut case = Case::new(&[(20, 20), (70, 70), (20, 20)], (2, 1, 16)).of(dtype);
    // The first key of the second range: all its queries see it.
    case.k[20 * 16] = f32::NAN;
    let results = case.run(device);
    for (index, range) in case.ranges.iter().enumerate() {
        for (result, part) in results.iter().zip(case.parts(range)) {
            assert!(result[part].iter().all(|v| v.is_nan() == (index == 1)));
        }
    }
}

#[test]
fn large_scores_do_not_overflow() {
    for dtype in [DType::F32, DType::BF16] {
        check_large(&Cpu::new(1).unwrap(), dtype);
        check_large(cuda(), dtype);
    }
}

fn check_large<D: Attention>(device: &D, dtype: DType) {
    let mut case = Case::new(&[(80, 80)], (1, 1, 16));
    case.q.iter_mut().for_each(|q| *q *= 1e4);
    let results = case.of(dtype).run(device);
    assert!(results.iter().flatten().all(|v| v.is_finite()));
}

#[test]
fn tiles_cover_every_row_once_and_long_ones_come_first() {
    let cpu = Cpu::new(1).unwrap();
    let mut ranges = on(&cpu, &ranges(&[(200, 200); 3]));
    ranges
        .set(self::ranges(&[(3, 130), (0, 5), (129, 129)]))
        .unwrap();
    assert_eq!(
        ranges.query_tiles().as_slice(),
        [[2, 128], [0, 0], [2, 64], [2, 0]]
    );
    let keys = [[0, 0], [2, 0], [0, 64], [2, 64], [1, 0], [0, 128], [2, 128]];
    assert_eq!(ranges.key_tiles().as_slice(), keys);
    let stored = ranges.key_tiles().tensor().to_vec::<u32>().unwrap();
    assert_eq!(stored[..14], *keys.as_flattened());
}
