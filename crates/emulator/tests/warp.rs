//! Operations across lanes, divergence and barriers.
mod support;
use support::{Arg, Machine, kernel, module};
use tightrope_emulator::{FindingKind, LaunchConfig};

/// Runs `body`, which leaves a value per thread in `%r50`, in one block of `threads`.
fn per_thread(body: &str, threads: u32) -> Vec<u32> {
    let text = format!(
        "ld.param.u64 %rd50, [out];\nmov.u32 %r0, %tid.x;\n{body}\n\
         mov.u32 %r59, %tid.x;\nmul.wide.u32 %rd51, %r59, 4;\nadd.s64 %rd50, %rd50, %rd51;\nst.global.u32 [%rd50], %r50;"
    );
    let mut machine = Machine::new(&kernel(".param .u64 out", &text));
    let out = machine.output(u64::from(threads) * 4);
    machine.clean(
        "k",
        &LaunchConfig::new([1, 1, 1], [threads, 1, 1]),
        &[Arg::U64(out)],
    );
    machine.download_u32(out, threads as usize)
}

fn finding(body: &str, threads: u32, kind: FindingKind) -> String {
    let text = format!("mov.u32 %r0, %tid.x;\n{body}");
    let mut machine = Machine::new(&kernel("", &text));
    machine.caught(
        "k",
        &LaunchConfig::new([1, 1, 1], [threads, 1, 1]),
        &[],
        kind,
    )
}

#[test]
fn shuffles() {
    let got = per_thread("shfl.sync.bfly.b32 %r50, %r0, 1, 31, -1;", 32);
    assert!((0..32).all(|i| got[i] == (i ^ 1) as u32));
    let got = per_thread(
        "shfl.sync.down.b32 %r50|%p1, %r0, 3, 31, -1;\n@!%p1 mov.u32 %r50, 99;",
        32,
    );
    assert!((0..32).all(|i| got[i] == if i + 3 < 32 { i as u32 + 3 } else { 99 }));
    let got = per_thread("shfl.sync.up.b32 %r50, %r0, 1, 0, -1;", 32);
    assert!((0..32).all(|i| got[i] == (i as u32).saturating_sub(1)));
    // Broadcast from lane 2 of each group of eight.
    let got = per_thread("shfl.sync.idx.b32 %r50, %r0, 2, 0x181f, -1;", 32);
    assert!((0..32).all(|i| got[i] == (i as u32 & !7) + 2));
}

#[test]
fn votes_matches_and_reductions() {
    let odd = "and.b32 %r1, %r0, 1;\nsetp.eq.u32 %p1, %r1, 1;\n";
    let got = per_thread(&format!("{odd}vote.sync.ballot.b32 %r50, %p1, -1;"), 32);
    assert!(got.iter().all(|v| *v == 0xaaaa_aaaa));
    let got = per_thread(
        &format!("{odd}vote.sync.any.pred %p2, %p1, -1;\nselp.u32 %r50, 1, 0, %p2;"),
        32,
    );
    assert!(got.iter().all(|v| *v == 1));
    let got = per_thread(
        &format!("{odd}vote.sync.all.pred %p2, !%p1, -1;\nselp.u32 %r50, 1, 0, %p2;"),
        32,
    );
    assert!(got.iter().all(|v| *v == 0));
    let got = per_thread(
        "shr.u32 %r1, %r0, 3;\nmatch.any.sync.b32 %r50, %r1, -1;",
        32,
    );
    assert!((0..32).all(|i| got[i] == 0xff << (i & !7)));
    let got = per_thread(
        "match.all.sync.b32 %r50|%p1, %r0, -1;\n@!%p1 mov.u32 %r50, 7;",
        32,
    );
    assert!(got.iter().all(|v| *v == 7));
    let got = per_thread("redux.sync.add.u32 %r50, %r0, -1;", 32);
    assert!(got.iter().all(|v| *v == 496));
    let got = per_thread(
        "sub.s32 %r1, %r0, 16;\nredux.sync.min.s32 %r50, %r1, -1;",
        32,
    );
    assert!(got.iter().all(|v| *v as i32 == -16));
    // Each half of the warp with a mask of its own.
    let halves = "setp.lt.u32 %p1, %r0, 16;\nselp.b32 %r1, 0xffff, 0xffff0000, %p1;\nredux.sync.max.u32 %r50, %r0, %r1;";
    let got = per_thread(halves, 32);
    assert!((0..32).all(|i| got[i] == if i < 16 { 15 } else { 31 }));
    let got = per_thread("activemask.b32 %r50;", 20);
    assert!(got.iter().all(|v| *v == 0xfffff));
    let got = per_thread("elect.sync _|%p1, -1;\nselp.u32 %r50, 1, 0, %p1;", 32);
    assert_eq!(got.iter().sum::<u32>(), 1);
}

#[test]
fn special_registers() {
    for (name, expected) in [
        ("%laneid", (0..40).map(|i| i % 32).collect::<Vec<u32>>()),
        ("%warpid", (0..40).map(|i| i / 32).collect()),
        ("%ntid.x", vec![40; 40]),
        ("%nctaid.x", vec![1; 40]),
        ("%ctaid.x", vec![0; 40]),
        (
            "%lanemask_lt",
            (0..40).map(|i| (1 << (i % 32)) - 1).collect(),
        ),
        (
            "%lanemask_ge",
            (0..40).map(|i| !((1u32 << (i % 32)) - 1)).collect(),
        ),
    ] {
        assert_eq!(
            per_thread(&format!("mov.u32 %r50, {name};"), 40),
            expected,
            "{name}"
        );
    }
}

#[test]
fn divergent_lanes_come_together_again() {
    let body = "setp.lt.u32 %p1, %r0, 10;\n@%p1 bra $low;\nadd.u32 %r50, %r0, 100;\nbra $join;\n\
                $low:\nadd.u32 %r50, %r0, 1000;\n$join:\nshfl.sync.idx.b32 %r50, %r50, 3, 31, -1;";
    assert!(per_thread(body, 32).iter().all(|v| *v == 1003));
    // A loop that each lane leaves after its own number of rounds.
    let body = "mov.u32 %r50, 0;\nmov.u32 %r1, 0;\n$again:\nsetp.ge.u32 %p1, %r1, %r0;\n@%p1 bra $done;\n\
                add.u32 %r50, %r50, %r1;\nadd.u32 %r1, %r1, 1;\nbra $again;\n$done:";
    let got = per_thread(body, 32);
    assert!((0..32u32).all(|i| got[i as usize] == i * i.saturating_sub(1) / 2));
    let body = "and.b32 %r1, %r0, 3;\n$table: .branchtargets $a, $b, $a, $c;\nbrx.idx %r1, $table;\n\
                $a: mov.u32 %r50, 1; bra $end;\n$b: mov.u32 %r50, 2; bra $end;\n$c: mov.u32 %r50, 3;\n$end:";
    assert!(
        per_thread(body, 32)
            .iter()
            .enumerate()
            .all(|(i, v)| *v == [1, 2, 1, 3][i % 4])
    );
}

#[test]
fn barriers_reduce_and_name_warps() {
    let odd = "and.b32 %r1, %r0, 1;\nsetp.eq.u32 %p1, %r1, 1;\n";
    let got = per_thread(&format!("{odd}bar.red.popc.u32 %r50, 0, %p1;"), 96);
    assert!(got.iter().all(|v| *v == 48));
    let got = per_thread(
        &format!("{odd}bar.red.and.pred %p2, 0, %p1;\nselp.u32 %r50, 1, 0, %p2;"),
        96,
    );
    assert!(got.iter().all(|v| *v == 0));
    // The first warp produces, the second consumes, the third goes its own way.
    let text = module(
        ".visible .entry k(.param .u64 out)\n{\n.reg .pred %p<4>;\n.reg .b32 %r<8>;\n.reg .b64 %rd<4>;\n\
         .shared .align 4 .b32 box[32];\n\
         ld.param.u64 %rd1, [out];\nmov.u32 %r1, %tid.x;\nand.b32 %r2, %r1, 31;\nmov.u32 %r3, box;\n\
         shl.b32 %r4, %r2, 2;\nadd.u32 %r3, %r3, %r4;\nshr.u32 %r5, %r1, 5;\n\
         setp.eq.u32 %p1, %r5, 0;\n@%p1 bra $produce;\nsetp.eq.u32 %p1, %r5, 1;\n@%p1 bra $consume;\nret;\n\
         $produce:\nst.shared.u32 [%r3], %r2;\nbar.arrive 1, 64;\nret;\n\
         $consume:\nbar.sync 1, 64;\nxor.b32 %r3, %r3, 4;\nld.shared.u32 %r6, [%r3];\n\
         mul.wide.u32 %rd2, %r2, 4;\nadd.s64 %rd1, %rd1, %rd2;\nst.global.u32 [%rd1], %r6;\nret;\n}",
    );
    for seed in [None, Some(1), Some(2)] {
        let mut machine = Machine::new(&text);
        let out = machine.output(128);
        let config = LaunchConfig {
            seed,
            ..LaunchConfig::new([1, 1, 1], [96, 1, 1])
        };
        machine.clean("k", &config, &[Arg::U64(out)]);
        assert!(
            machine
                .download_u32(out, 32)
                .iter()
                .enumerate()
                .all(|(i, v)| *v == i as u32 ^ 1)
        );
    }
    let broken = text.replace("bar.sync 1, 64;", "");
    let mut machine = Machine::new(&broken);
    let out = machine.output(128);
    let report = machine.launch(
        "k",
        &LaunchConfig {
            seed: Some(1),
            ..LaunchConfig::new([1, 1, 1], [96, 1, 1])
        },
        &[Arg::U64(out)],
    );
    assert!(matches!(
        report.findings[0].kind,
        FindingKind::Race | FindingKind::UninitialisedRead
    ));
}

#[test]
fn barriers_that_do_not_fit_are_found() {
    let text = finding(
        "setp.lt.u32 %p1, %r0, 32;\n@%p1 bra $skip;\nbar.sync 0;\n$skip:",
        64,
        FindingKind::DivergentBarrier,
    );
    assert!(
        text.contains("32 have exited") && text.contains("PTX line 15"),
        "{text}"
    );
    let text = finding(
        "setp.lt.u32 %p1, %r0, 40;\n@%p1 bra $skip;\nbar.sync 0;\n$skip:\nbar.sync 0;",
        64,
        FindingKind::DivergentBarrier,
    );
    assert!(text.contains("wait at the barrier of line"), "{text}");
    finding(
        "setp.lt.u32 %p1, %r0, 5;\n@%p1 ret;\nbar.sync 0;",
        32,
        FindingKind::DivergentBarrier,
    );
}

#[test]
fn masks_that_do_not_fit_are_found() {
    let text = finding(
        "shfl.sync.bfly.b32 %r1, %r0, 1, 31, 0xffff;",
        32,
        FindingKind::InvalidWarpOperation,
    );
    assert!(text.contains("lane 16"), "{text}");
    let text = finding(
        "setp.lt.u32 %p1, %r0, 5;\n@%p1 shfl.sync.bfly.b32 %r1, %r0, 1, 31, -1;",
        32,
        FindingKind::InvalidWarpOperation,
    );
    assert!(text.contains("do not come"), "{text}");
    // A lane outside of the mask gives no value: using it is the mistake.
    finding(
        "setp.lt.u32 %p1, %r0, 16;\n@!%p1 ret;\nshfl.sync.idx.b32 %r1, %r0, 20, 31, 0xffff;\nadd.u32 %r2, %r1, 1;",
        32,
        FindingKind::UnsetRegister,
    );
    finding("trap;", 32, FindingKind::Trap);
}

#[test]
fn a_warp_that_waits_for_itself_makes_no_progress() {
    let text = "mov.u32 %r0, %tid.x;\n$again:\nbra $again;";
    let mut machine = Machine::new(&kernel("", text));
    let config = LaunchConfig {
        instruction_limit: 100_000,
        ..LaunchConfig::new([1, 1, 1], [32, 1, 1])
    };
    machine.caught("k", &config, &[], FindingKind::NoProgress);
}
