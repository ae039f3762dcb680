//! Every case of the suite `kernels` on the emulator.

use std::{env, process::Command};
use tightrope_benches::{EMULATOR_REPORT, SUITES};

const NAME: &str = "every_case_is_counted";

#[test]
fn every_case_is_counted() {
    if env::var_os(EMULATOR_REPORT).is_none() {
        // Again, in a process where the emulator writes what it counts.
        let folder = tempfile::tempdir().unwrap();
        let status = Command::new(env::current_exe().unwrap())
            .args([NAME, "--exact", "--nocapture"])
            .env(EMULATOR_REPORT, folder.path().join("launches.tsv"))
            .status();
        assert!(status.unwrap().success());
        return;
    }
    let _loaded = tightrope_testkit::cuda();
    let suite = SUITES.iter().find(|suite| suite.name == "kernels").unwrap();
    let mut cases = 0;
    (suite.run)(&mut |row| {
        let Some(asked) = row.get("asked_over_least") else {
            return; // An operation without a case.
        };
        cases += 1;
        // The least that must be moved has to be requested, so a number below 1 means that the
        // least is wrong.
        assert!(asked.as_f64().unwrap() >= 1.0, "{row:?}");
        assert!(row["moved_over_asked"].as_f64().unwrap() > 0.0, "{row:?}");
        // Matrix products are not executed; the row says so.
        let operation = row["operation"].as_str().unwrap();
        let by_formula = row["share_by_formula"].as_f64().unwrap();
        assert_eq!(by_formula > 0.0, operation.starts_with("linear"), "{row:?}");
        let gpu = &row["roofline"]["H100 SXM"];
        let [least, counted] = ["least_us", "counted_us"].map(|key| gpu[key].as_f64().unwrap());
        assert!(0.0 < least && least <= counted, "{row:?}");
    })
    .unwrap();
    assert!(cases >= 10, "{cases} cases");
}
