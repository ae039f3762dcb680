//! Attention on the CPU.

use super::{Attention, Backward, Config, Forward, Range};
use crate::{Checked, KernelError};
use rayon::prelude::*;
use tightrope_device::Cpu;

/// Scores of one query after scale and softcap, and the first key that it sees.
fn scores(
    config: &Config<'_, Cpu>,
    range: &Range,
    i: usize,
    q: &[f32],
    k: &[f32],
    g: usize,
) -> (usize, Vec<f32>) {
    let d = config.head_dim;
    let end = i + 1 + (range.key_len - range.query_len) as usize;
    let first = config.window.map_or(0, |w| end.saturating_sub(w));
    let s = (first..end)
        .map(|j| {
            let k = &k[((range.key_start as usize + j) * config.kv_heads + g) * d..][..d];
            let z = config.scale * q.iter().zip(k).map(|(a, b)| a * b).sum::<f32>();
            config.softcap.map_or(z, |cap| cap * (z / cap).tanh())
        })
        .collect();
    (first, s)
}

impl Attention for Cpu {
    fn attention_forward(&self, args: Checked<Forward<'_, Self>>) -> Result<(), KernelError> {
        let Forward {
            q,
            k,
            v,
            y,
            lse,
            config,
        } = args.into_inner();
        let (q, k, v) = (
            q.as_slice::<f32>()?,
            k.as_slice::<f32>()?,
            v.as_slice::<f32>()?,
        );
        let (y, lse) = (y.as_mut_slice::<f32>()?, lse.as_mut_slice::<f32>()?);
        let (h, d) = (config.heads, config.head_dim);
        for range in config.ranges.as_slice() {
            let start = range.query_start as usize * h;
            let rows = range.query_len as usize * h;
            let (y, lse) = (&mut y[start * d..][..rows * d], &mut lse[start..][..rows]);
            self.install(|| {
                y.par_chunks_exact_mut(d.max(1))
                    .zip(lse.par_iter_mut())
                    .enumerate()
                    .for_each(|(row, (y, lse))| {
                        let (i, head) = (row / h, row % h);
                        let g = head * config.kv_heads / h;
                        let (first, s) =
                            scores(&config, range, i, &q[(start + row) * d..][..d], k, g);
                        let m = s.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                        let total: f32 = s.iter().map(|s| (s - m).exp()).sum();
                        *lse = m + total.ln();
                        y.fill(0.0);
                        for (j, s) in s.iter().enumerate() {
                            let p = (s - *lse).exp();
                            let v = &v[((range.key_start as usize + first + j)
                                * config.kv_heads
                                + g)
                                * d..][..d];
                            y.iter_mut().zip(v).for_each(|(y, v)| *y += p * v);
                        }
                    });
            });
        }
        Ok(())
    }

    fn attention_backward(&self, args: Checked<Backward<'_, Self>>) -> Result<(), KernelError> {
        let Backward {
            dy,
            y,
            lse,
            q,
            k,
            v,
            delta,
            dq,
            dk,
            dv,
            config,
        } = args.into_inner();
        let (dy, y, lse) = (
            dy.as_slice::<f32>()?,
            y.as_slice::<f32>()?,
            lse.as_slice::<f32>()?,
        );
        let (q, k, v) = (
            q.as_slice::<f32>()?,
            k.as_slice::<f32>()?,
            v.as_slice::<f32>()?,
        );
        let (delta, dq) = (delta.as_mut_slice::<f32>()?, dq.as_mut_slice::<f32>()?);
        let (dk, dv) = (dk.as_mut_slice::<f32>()?, dv.as_mut_slice::<f32>()?);
        let (h, d) = (config.heads, config.head_dim);
        for range in config.ranges.as_slice() {
            let keys = (
                range.key_start as usize * config.kv_heads * d,
                range.key_len as usize * config.kv_heads * d,
            );
            dk[keys.0..][..keys.1].fill(0.0);
            dv[keys.0..][..keys.1].fill(0.0);
            for i in 0..range.query_len as usize {
                for head in 0..h {
                    let row = (range.query_start as usize + i) * h + head;
                    let g = head * config.kv_heads / h;
                    let at = |x: &[f32]| -> Vec<f32> { x[row * d..][..d].to_vec() };
                    let (q, dy, y) = (at(q), at(dy), at(y));
                    delta[row] = dy.iter().zip(&y).map(|(a, b)| a * b).sum();
                    let dq = &mut dq[row * d..][..d];
                    dq.fill(0.0);
                    let (first, s) = scores(&config, range, i, &q, k, g);
                    for (j, s) in s.iter().enumerate() {
                        let key =
                            ((range.key_start as usize + first + j) * config.kv_heads + g) * d;
                        let p = (s - lse[row]).exp();
                        let dp: f32 = dy.iter().zip(&v[key..][..d]).map(|(a, b)| a * b).sum();
                        let slope = config.softcap.map_or(1.0, |cap| 1.0 - (s / cap).powi(2));
                        let ds = p * (dp - delta[row]) * slope * config.scale;
                        for x in 0..d {
                            dv[key + x] += p * dy[x];
                            dk[key + x] += ds * q[x];
                            dq[x] += ds * k[key + x];
                        }
                    }
                }
            }
        }
        Ok(())
    }
}
