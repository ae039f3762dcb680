//! Attention against the f64 oracle, over awkward ranges, windows, softcaps and thread counts.

use super::*;
use tightrope_device::Cpu;
use tightrope_testkit::{Random, assert_close, oracle::attention as oracle, widen};

#[derive(Clone)]
struct Case {
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

    fn scale(&self) -> f32 {
        (self.head_dim as f32).powf(-0.5)
    }

    fn run(&self, cpu: &Cpu) -> Results {
        let tensor = |v: &[f32]| Tensor::from_slice(cpu, &[v.len()], v).unwrap();
        let nan = |len: usize| tensor(&vec![f32::NAN; len]);
        let ranges = Ranges::new(cpu, self.ranges.clone()).unwrap();
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
        let [q, k, v, dy] = [&self.q, &self.k, &self.v, &self.dy].map(|x| tensor(x));
        let (mut y, mut lse, mut delta) = (nan(q.len()), nan(rows), nan(rows));
        let (mut dq, mut dk, mut dv) = (nan(q.len()), nan(k.len()), nan(k.len()));
        let forward = Forward {
            q: &q,
            k: &k,
            v: &v,
            y: &mut y,
            lse: &mut lse,
            config,
        };
        cpu.attention_forward(forward.checked().unwrap()).unwrap();
        let backward = Backward {
            dy: &dy,
            y: &y,
            lse: &lse,
            q: &q,
            k: &k,
            v: &v,
            delta: &mut delta,
            dq: &mut dq,
            dk: &mut dk,
            dv: &mut dv,
            config,
        };
        cpu.attention_backward(backward.checked().unwrap()).unwrap();
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

    #[track_caller]
    fn compare(&self, cpu: &Cpu) {
        let got = self.run(cpu);
        for range in &self.ranges {
            let options = oracle::Options {
                queries: range.query_len as usize,
                keys: range.key_len as usize,
                heads: self.heads,
                kv_heads: self.kv_heads,
                head_dim: self.head_dim,
                scale: self.scale().into(),
                window: self.window,
                softcap: self.softcap.map(f64::from),
            };
            let parts = self.parts(range);
            let [q, dy] = [&self.q, &self.dy].map(|x| widen(&x[parts[0].clone()]));
            let [k, v] = [&self.k, &self.v].map(|x| widen(&x[parts[3].clone()]));
            let forward = oracle::forward(&q, &k, &v, options);
            let backward = oracle::backward(&dy, &q, &k, &v, options);
            let expected = [
                forward.y,
                forward.lse,
                backward.dq,
                backward.dk,
                backward.dv,
            ];
            for (((name, got), part), expected) in NAMES.iter().zip(&got).zip(parts).zip(expected) {
                assert_close(name, &got[part], &expected, 1e-5, 1e-5);
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
            }
        }
    }
}

#[test]
fn other_head_sizes_match() {
    let cpu = Cpu::new(2).unwrap();
    for head_dim in [8, 24, 32, 96, 128, 256] {
        Case::new(&[(70, 70), (9, 9)], (2, 1, head_dim)).compare(&cpu);
    }
}

#[test]
fn queries_at_the_end_of_a_cache_match() {
    let cpu = Cpu::new(2).unwrap();
    for window in [None, Some(3), Some(66)] {
        let mut case = Case::new(
            &[(1, 77), (5, 130), (64, 65), (1, 1), (70, 200), (0, 9)],
            (4, 2, 16),
        );
        case.window = window;
        case.compare(&cpu);
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
    let cpu = Cpu::new(2).unwrap();
    let lengths = [(37, 37), (100, 100), (3, 3), (64, 80)];
    let mut packed = Case::new(&lengths, (4, 2, 16));
    packed.window = Some(50);
    let whole = packed.run(&cpu);
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
            .zip(alone.run(&cpu))
            .zip(whole.iter().zip(parts))
        {
            assert_eq!(alone, whole[part], "{name} of range {index}");
        }
    }
}

#[test]
fn a_window_as_long_as_the_range_changes_no_bit() {
    let cpu = Cpu::new(2).unwrap();
    let mut case = Case::new(&[(130, 130)], (2, 1, 32));
    let open = case.run(&cpu);
    case.window = Some(130);
    assert_eq!(open, case.run(&cpu));
}

#[test]
fn a_nan_stays_in_its_range_and_is_not_hidden() {
    let cpu = Cpu::new(2).unwrap();
    let mut case = Case::new(&[(20, 20), (70, 70), (20, 20)], (2, 1, 16));
    // The first key of the second range: all its queries see it.
    case.k[20 * 16] = f32::NAN;
    let results = case.run(&cpu);
    for (index, range) in case.ranges.iter().enumerate() {
        for (result, part) in results.iter().zip(case.parts(range)) {
            assert!(result[part].iter().all(|v| v.is_nan() == (index == 1)));
        }
    }
}

#[test]
fn large_scores_do_not_overflow() {
    let cpu = Cpu::new(1).unwrap();
    let mut case = Case::new(&[(80, 80)], (1, 1, 16));
    case.q.iter_mut().for_each(|q| *q *= 1e4);
    assert!(case.run(&cpu).iter().flatten().all(|v| v.is_finite()));
}
