//! Times an operation on hardware, and compares it with the roofline of that GPU.

use super::case::Case;
use crate::{Row, row};
use anyhow::Result;
use serde_json::json;
use std::time::Duration;
use tightrope_device::{Cuda, Device};
use tightrope_emulator::roofline::GPUS;

/// Least duration of one batch of launches, so that the wait of the first launch for the host is
/// negligible.
const BATCH: Duration = Duration::from_millis(50);
const BATCHES: usize = 7;

/// Times batches of consecutive launches with events of the GPU around each batch.
pub(super) fn time(cuda: &Cuda, case: Case) -> Result<Row> {
    let mut work = (case.prepare)(cuda)?;
    let mut batch = |launches: u32| cuda.time(|| (0..launches).try_for_each(|_| work(cuda)));
    // The first launch also translates the kernel.
    batch(1)?;
    let mut launches = 1;
    while batch(launches)? < BATCH {
        launches *= 2;
    }
    let seconds = (0..BATCHES).map(|_| Ok(batch(launches)?.as_secs_f64() / f64::from(launches)));
    let mut seconds = seconds.collect::<Result<Vec<f64>>>()?;
    seconds.sort_by(f64::total_cmp);
    let min = seconds[0];

    let name = cuda.name();
    // `cuda:0 (NVIDIA …)`.
    let of_device = |driver_name: &str| name.ends_with(&format!("({driver_name})"));
    let gpu = GPUS.iter().find(|gpu| of_device(gpu.driver_name));
    let least =
        gpu.map(|gpu| gpu.least_seconds(case.least_bytes as f64, case.least_multiply_adds as f64));
    Ok(row([
        ("operation", case.name.into()),
        ("shape", case.shape.into()),
        ("device", name.clone().into()),
        ("least_bytes", case.least_bytes.into()),
        ("launches", launches.into()),
        ("min_us", (min * 1e6).into()),
        ("median_us", (seconds[BATCHES / 2] * 1e6).into()),
        (
            "gigabytes_per_second",
            (case.least_bytes as f64 / min / 1e9).into(),
        ),
        // Null on a GPU with unknown figures.
        ("least_us", json!(least.map(|least| least * 1e6))),
        ("share_of_roofline", json!(least.map(|least| least / min))),
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread::sleep;

    #[test]
    fn the_time_is_that_of_one_launch() {
        let case = Case {
            name: "sleep".into(),
            shape: "1 ms".into(),
            elements: 1,
            least_bytes: 1000,
            least_multiply_adds: 0,
            prepare: Box::new(|_| {
                Ok(Box::new(|_| {
                    sleep(Duration::from_millis(1));
                    Ok(())
                }))
            }),
        };
        let row = time(tightrope_testkit::cuda(), case).unwrap();
        assert!(row["launches"].as_u64().unwrap() > 1, "{row:?}");
        let [min, median] = ["min_us", "median_us"].map(|key| row[key].as_f64().unwrap());
        assert!(1000.0 <= min && min <= median, "{row:?}");
        assert!(
            row["share_of_roofline"].is_null(),
            "the emulator has no roofline"
        );
    }
}
