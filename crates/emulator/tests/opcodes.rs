//! One table per family of opcodes, with values worked out from the PTX specification.
mod support;
use support::{evaluate, evaluate32};

fn table32(letter: &str, rows: &[(&str, &[u32], u32)]) {
    for (op, inputs, expected) in rows {
        let got = evaluate32(op, letter, inputs);
        assert_eq!(
            got, *expected,
            "{op} {inputs:#x?}: got {got:#x}, expected {expected:#x}"
        );
    }
}

#[test]
fn integer_arithmetic() {
    const MIN: u32 = 0x8000_0000;
    table32(
        "r",
        &[
            ("add.s32", &[0xffff_ffff, 2], 1),
            ("add.sat.s32", &[0x7fff_ffff, 1], 0x7fff_ffff),
            ("sub.s32", &[1, 2], 0xffff_ffff),
            ("sub.sat.s32", &[MIN, 1], MIN),
            ("mul.lo.s32", &[0x10000, 0x10001], 0x10000),
            ("mul.hi.u32", &[0xffff_ffff, 0xffff_ffff], 0xffff_fffe),
            ("mul.hi.s32", &[0xffff_ffff, 0xffff_ffff], 0),
            ("mad.lo.u32", &[3, 5, 7], 22),
            ("mad.hi.s32", &[MIN, 2, 5], 4),
            ("div.s32", &[(-7i32) as u32, 2], (-3i32) as u32),
            ("div.u32", &[7, 0], 0xffff_ffff),
            ("rem.s32", &[(-7i32) as u32, 2], (-1i32) as u32),
            ("min.s32", &[0xffff_ffff, 1], 0xffff_ffff),
            ("min.u32", &[0xffff_ffff, 1], 1),
            ("max.s32", &[0xffff_ffff, 1], 1),
            ("neg.s32", &[5], (-5i32) as u32),
            ("abs.s32", &[(-5i32) as u32], 5),
            ("abs.s32", &[MIN], MIN),
            ("sad.u32", &[3, 10, 100], 107),
            ("dp4a.u32.u32", &[0x0403_0201, 0x0101_0101, 5], 15),
            ("dp4a.s32.s32", &[0xff01_01ff, 0x0101_0101, 5], 5),
            (
                "dp4a.u32.s32",
                &[0x0000_00ff, 0x0000_00ff, 0],
                (-255i32) as u32,
            ),
        ],
    );
}

#[test]
fn wide_products_do_not_wrap() {
    let run = |op: &str, a: u64, b: u64, c: u64| evaluate(&format!("{op};"), &[a, b, c]);
    assert_eq!(
        run("mul.wide.u32 %rd40, %r1, %r2", 0xffff_ffff, 0xffff_ffff, 0),
        0xffff_fffe_0000_0001
    );
    assert_eq!(
        run("mul.wide.s32 %rd40, %r1, %r2", 0xffff_ffff, 4, 0),
        (-4i64) as u64
    );
    assert_eq!(
        run("mad.wide.u32 %rd40, %r1, %r2, %rd3", 1 << 31, 4, 1 << 40),
        (1 << 33) + (1 << 40)
    );
    assert_eq!(
        run("mul.hi.u64 %rd40, %rd1, %rd2", u64::MAX, u64::MAX, 0),
        u64::MAX - 1
    );
    assert_eq!(
        run("mul.hi.s64 %rd40, %rd1, %rd2", u64::MAX, u64::MAX, 0),
        0
    );
    assert_eq!(
        run("div.s64 %rd40, %rd1, %rd2", (-9i64) as u64, 2, 0),
        (-4i64) as u64
    );
    assert_eq!(
        run(
            "mul.wide.u16 %r40, %rs1, %rs2;\ncvt.u64.u32 %rd40, %r40",
            0xffff,
            0xffff,
            0
        ),
        0xfffe_0001
    );
}

#[test]
fn carries() {
    // 64-bit sum from 32-bit halves.
    let body = "add.cc.u32 %r20, %r1, %r2;\naddc.u32 %r21, 0, 0;\nmov.b64 %rd40, {%r20, %r21};";
    assert_eq!(evaluate(body, &[0xffff_ffff, 2]), 0x1_0000_0001);
    let body = "sub.cc.u32 %r20, %r1, %r2;\nsubc.u32 %r21, 5, 0;\nmov.b64 %rd40, {%r20, %r21};";
    assert_eq!(evaluate(body, &[1, 2]), 0x4_ffff_ffff);
}

#[test]
fn bits_and_shifts() {
    table32(
        "r",
        &[
            ("and.b32", &[0b1100, 0b1010], 0b1000),
            ("or.b32", &[0b1100, 0b1010], 0b1110),
            ("xor.b32", &[0b1100, 0b1010], 0b0110),
            ("not.b32", &[0], 0xffff_ffff),
            ("cnot.b32", &[0], 1),
            ("shl.b32", &[1, 31], 0x8000_0000),
            ("shl.b32", &[1, 32], 0),
            ("shr.u32", &[0x8000_0000, 31], 1),
            ("shr.u32", &[0x8000_0000, 32], 0),
            ("shr.s32", &[0x8000_0000, 40], 0xffff_ffff),
            ("shf.l.wrap.b32", &[0x8000_0000, 1, 33], 3),
            ("shf.l.clamp.b32", &[0x8000_0000, 1, 33], 0x8000_0000),
            ("shf.r.wrap.b32", &[2, 1, 1], 0x8000_0001),
            ("shf.r.clamp.b32", &[2, 1, 40], 1),
            ("bfe.u32", &[0xabcd_1234, 8, 8], 0x12),
            ("bfe.s32", &[0x0000_8000, 8, 8], 0xffff_ff80),
            ("bfe.u32", &[0xabcd_1234, 28, 8], 0xa),
            ("bfe.s32", &[0xabcd_1234, 28, 8], 0xffff_fffa),
            ("bfe.u32", &[0xabcd_1234, 8, 0], 0),
            ("bfe.s32", &[0x8000_0000, 40, 4], 0xffff_ffff),
            ("bfi.b32", &[0xff, 0, 8, 4], 0xf00),
            ("bfi.b32", &[0xff, 0xffff_ffff, 8, 0], 0xffff_ffff),
            ("bfi.b32", &[0, 0xffff_ffff, 28, 8], 0x0fff_ffff),
            ("prmt.b32", &[0x3322_1100, 0x7766_5544, 0x6420], 0x6644_2200),
            ("prmt.b32", &[0x0000_0080, 0, 0x1118], 0x0000_00ff),
            ("popc.b32", &[0xf0f0], 8),
            ("clz.b32", &[1], 31),
            ("clz.b32", &[0], 32),
            ("brev.b32", &[1], 0x8000_0000),
            ("bfind.u32", &[0x10], 4),
            ("bfind.u32", &[0], 0xffff_ffff),
            ("bfind.s32", &[0xffff_fffe], 0),
            ("bfind.shiftamt.u32", &[0x10], 27),
            ("bfind.shiftamt.u32", &[0xffff_ffff], 0),
            ("bfind.shiftamt.u32", &[0], 0xffff_ffff),
        ],
    );
    // lop3: the table of (a & b) ^ c.
    let body = "lop3.b32 %r20, %r1, %r2, %r3, 0x6a;\ncvt.u64.u32 %rd40, %r20;";
    assert_eq!(evaluate(body, &[0b1100, 0b1010, 0b0110]), 0b1110);
    assert_eq!(
        evaluate("clz.b64 %r20, %rd1;\ncvt.u64.u32 %rd40, %r20;", &[1]),
        63
    );
    let body = "bfind.shiftamt.u64 %r20, %rd1;\ncvt.u64.u32 %rd40, %r20;";
    assert_eq!(evaluate(body, &[1]), 63);
    assert_eq!(evaluate(body, &[0]), 0xffff_ffff);
    assert_eq!(
        evaluate("bfe.s64 %rd40, %rd1, 60, 8;", &[0x8000_0000_0000_0000]),
        (-8i64) as u64
    );
}

#[test]
fn f32_rounding_and_special_values() {
    let f = f32::to_bits;
    let (inf, nan, canonical) = (f(f32::INFINITY), 0xffc0_0001, 0x7fff_ffff);
    let tiny = 1u32; // the least subnormal
    table32(
        "f",
        &[
            ("add.f32", &[f(1.0), f(2f32.powi(-24))], f(1.0)),
            (
                "add.rp.f32",
                &[f(1.0), f(2f32.powi(-60))],
                f(1.0 + 2f32.powi(-23)),
            ),
            (
                "add.rz.f32",
                &[f(-1.0), f(2f32.powi(-60))],
                f(-1.0 + 2f32.powi(-24)),
            ),
            ("add.rm.f32", &[f(1.0), f(-1.0)], f(-0.0)),
            ("add.f32", &[inf, f(f32::NEG_INFINITY)], canonical),
            ("add.f32", &[nan, f(1.0)], canonical),
            ("add.ftz.f32", &[tiny, tiny], 0),
            ("add.f32", &[tiny, tiny], 2),
            ("add.sat.f32", &[f(0.75), f(0.75)], f(1.0)),
            ("add.sat.f32", &[nan, f(0.75)], 0),
            ("mul.f32", &[f(3.0), f(1.0 / 3.0)], f(1.0)),
            ("mul.rz.f32", &[f(3.0), f(1.0 / 3.0)], f(1.0)),
            ("mul.rm.f32", &[f(0.1), f(0.1)], 0x3c23_d70a),
            ("mul.rp.f32", &[f(0.1), f(0.1)], 0x3c23_d70b),
            (
                "fma.rn.f32",
                &[f(1.0 + 2f32.powi(-12)), f(1.0 + 2f32.powi(-12)), f(-1.0)],
                f(2f32.powi(-11) + 2f32.powi(-24)),
            ),
            ("fma.rm.f32", &[f(1.0), f(1.0), f(2f32.powi(-60))], f(1.0)),
            (
                "fma.rp.f32",
                &[f(1.0), f(1.0), f(2f32.powi(-60))],
                f(1.0 + 2f32.powi(-23)),
            ),
            ("fma.rn.sat.f32", &[f(2.0), f(2.0), f(1.0)], f(1.0)),
            ("div.rn.f32", &[f(1.0), f(3.0)], 0x3eaa_aaab),
            ("div.rz.f32", &[f(1.0), f(3.0)], 0x3eaa_aaaa),
            ("div.rn.f32", &[f(1.0), 0], inf),
            ("rcp.rn.f32", &[f(3.0)], 0x3eaa_aaab),
            ("rcp.rm.f32", &[f(3.0)], 0x3eaa_aaaa),
            ("sqrt.rn.f32", &[f(2.0)], 0x3fb5_04f3),
            ("sqrt.rp.f32", &[f(2.0)], 0x3fb5_04f4),
            ("sqrt.rn.f32", &[f(-1.0)], canonical),
            ("min.f32", &[nan, f(1.0)], f(1.0)),
            ("min.f32", &[nan, nan], canonical),
            ("min.NaN.f32", &[nan, f(1.0)], canonical),
            ("min.f32", &[0, f(-0.0)], f(-0.0)),
            ("max.f32", &[f(-0.0), 0], 0),
            ("max.NaN.f32", &[f(1.0), nan], canonical),
            ("neg.f32", &[f(1.0)], f(-1.0)),
            ("abs.f32", &[f(-1.0)], f(1.0)),
            ("copysign.f32", &[f(-2.0), f(3.0)], f(-3.0)),
        ],
    );
}

#[test]
fn f64_arithmetic() {
    let d = f64::to_bits;
    let run = |op: &str, inputs: &[f64]| {
        let names = (1..=inputs.len())
            .map(|i| format!(", %fd{i}"))
            .collect::<String>();
        let bits: Vec<u64> = inputs.iter().map(|v| v.to_bits()).collect();
        evaluate(&format!("{op} %fd10{names};\nmov.b64 %rd40, %fd10;"), &bits)
    };
    assert_eq!(run("add.f64", &[0.1, 0.2]), d(0.1 + 0.2));
    assert_eq!(run("add.rp.f64", &[1.0, 1e-30]), d(1f64.next_up()));
    assert_eq!(run("add.rm.f64", &[1.0, -1e-30]), d(1f64.next_down()));
    assert_eq!(
        run("mul.rz.f64", &[0.1, 0.1]),
        d((0.1f64 * 0.1).next_down())
    );
    assert_eq!(
        run("fma.rn.f64", &[0.1, 10.0, -1.0]),
        d(0.1f64.mul_add(10.0, -1.0))
    );
    assert_eq!(run("div.rn.f64", &[1.0, 3.0]), d(1.0 / 3.0));
    assert_eq!(run("min.f64", &[f64::NAN, 1.0]), d(1.0));
}

#[test]
fn half_precision_arithmetic() {
    let run = |op: &str, inputs: &[u64]| {
        let names = (1..=inputs.len())
            .map(|i| format!(", %rs{i}"))
            .collect::<String>();
        evaluate(
            &format!("{op} %rs20{names};\ncvt.u64.u16 %rd40, %rs20;"),
            inputs,
        )
    };
    // 1 + 2^-11 is a tie in f16, 1 + 2^-8 in bf16.
    assert_eq!(run("add.f16", &[0x3c00, 0x1000]), 0x3c00);
    assert_eq!(run("add.bf16", &[0x3f80, 0x3b80]), 0x3f80);
    assert_eq!(run("add.bf16", &[0x3f81, 0x3b80]), 0x3f82);
    // The fused product keeps what two roundings would lose.
    assert_eq!(run("fma.rn.f16", &[0x3c01, 0x3c01, 0xbc02]), 0x0010);
    assert_eq!(run("fma.rn.bf16", &[0x3f81, 0x3f81, 0xbf82]), 0x3880);
    assert_eq!(run("fma.rn.relu.bf16", &[0x3f80, 0xbf80, 0x0000]), 0x0000);
    assert_eq!(run("mul.f16", &[0x7bff, 0x4000]), 0x7c00);
    assert_eq!(run("max.bf16", &[0x7fc0, 0x3f80]), 0x3f80);
    assert_eq!(run("max.NaN.bf16", &[0x7fc0, 0x3f80]), 0x7fff);
    assert_eq!(run("min.f16", &[0x0000, 0x8000]), 0x8000);
    assert_eq!(run("neg.bf16", &[0x3f80]), 0xbf80);
    assert_eq!(run("abs.f16", &[0xbc00]), 0x3c00);
    table32(
        "r",
        &[
            ("add.f16x2", &[0x3c00_4000, 0x3c00_3c00], 0x4000_4200),
            (
                "fma.rn.bf16x2",
                &[0x3f80_4000, 0x4000_4000, 0x3f80_0000],
                0x4040_4080,
            ),
            ("mul.bf16x2", &[0x4000_3f80, 0x4000_bf80], 0x4080_bf80),
        ],
    );
}

#[test]
fn conversions() {
    let run = |op: &str, from: &str, to: &str, input: u64| {
        let widen = match &to[..2] {
            "%r" if to.starts_with("%rs") => "cvt.u64.u16 %rd40, %rs20;",
            "%f" if !to.starts_with("%fd") => "mov.b32 %r40, %f20;\ncvt.u64.u32 %rd40, %r40;",
            "%f" => "mov.b64 %rd40, %fd10;",
            _ if to.starts_with("%rd") => "",
            _ => "cvt.u64.u32 %rd40, %r20;",
        };
        evaluate(&format!("{op} {to}, {from};\n{widen}"), &[input])
    };
    let f = |value: f32| u64::from(value.to_bits());
    for (op, from, to, input, expected) in [
        (
            "cvt.rzi.s32.f32",
            "%f1",
            "%r20",
            f(-1.9),
            u64::from(-1i32 as u32),
        ),
        ("cvt.rni.s32.f32", "%f1", "%r20", f(2.5), 2),
        (
            "cvt.rmi.s32.f32",
            "%f1",
            "%r20",
            f(-1.1),
            u64::from(-2i32 as u32),
        ),
        ("cvt.rpi.s32.f32", "%f1", "%r20", f(1.1), 2),
        ("cvt.rzi.s32.f32", "%f1", "%r20", f(1e20), 0x7fff_ffff),
        ("cvt.rzi.u32.f32", "%f1", "%r20", f(-5.0), 0),
        ("cvt.rzi.s32.f32", "%f1", "%r20", f(f32::NAN), 0),
        ("cvt.rzi.s64.f32", "%f1", "%rd40", f(f32::NAN), 1 << 63),
        (
            "cvt.rzi.s32.f64",
            "%fd1",
            "%r20",
            f64::NAN.to_bits(),
            1 << 31,
        ),
        ("cvt.rni.f32.f32", "%f1", "%f20", f(2.5), f(2.0)),
        (
            "cvt.rn.f32.s32",
            "%r1",
            "%f20",
            0x0100_0001,
            f(16_777_216.0),
        ),
        (
            "cvt.rp.f32.s32",
            "%r1",
            "%f20",
            0x0100_0001,
            f(16_777_218.0),
        ),
        ("cvt.rn.f32.u64", "%rd1", "%f20", u64::MAX, f(2f32.powi(64))),
        ("cvt.rz.f32.u64", "%rd1", "%f20", u64::MAX, 0x5f7f_ffff),
        ("cvt.rn.f32.f64", "%fd1", "%f20", (0.1f64).to_bits(), f(0.1)),
        (
            "cvt.rm.f32.f64",
            "%fd1",
            "%f20",
            (0.1f64).to_bits(),
            u64::from(0.1f32.to_bits() - 1),
        ),
        ("cvt.f64.f32", "%f1", "%fd10", f(0.5), 0.5f64.to_bits()),
        ("cvt.sat.f32.f32", "%f1", "%f20", f(-3.0), 0),
        ("cvt.sat.f32.f32", "%f1", "%f20", f(f32::NAN), 0),
        ("cvt.ftz.f32.f32", "%f1", "%f20", 0x8000_0001, 0x8000_0000),
        ("cvt.rn.f16.f32", "%f1", "%rs20", f(65520.0), 0x7c00),
        ("cvt.rz.f16.f32", "%f1", "%rs20", f(65520.0), 0x7bff),
        (
            "cvt.rn.bf16.f32",
            "%f1",
            "%rs20",
            f(1.0 + 2f32.powi(-8)),
            0x3f80,
        ),
        ("cvt.rz.bf16.f32", "%f1", "%rs20", 0x3f80_ffff, 0x3f80),
        ("cvt.rn.relu.bf16.f32", "%f1", "%rs20", f(-1.0), 0),
        ("cvt.rn.bf16.f32", "%f1", "%rs20", f(f32::NAN), 0x7fff),
        ("cvt.f32.bf16", "%rs1", "%f20", 0x3f81, 0x3f81_0000),
        ("cvt.f32.f16", "%rs1", "%f20", 0x0001, f(2f32.powi(-24))),
        ("cvt.rna.tf32.f32", "%f1", "%r20", 0x3f80_1000, 0x3f80_2000),
        ("cvt.s64.s32", "%r1", "%rd40", 0xffff_ffff, u64::MAX),
        ("cvt.u64.u32", "%r1", "%rd40", 0xffff_ffff, 0xffff_ffff),
        ("cvt.s32.s8", "%r1", "%r20", 0x80, 0xffff_ff80),
        ("cvt.u32.u8", "%r1", "%r20", 0x1ff, 0xff),
        ("cvt.s16.s8", "%r1", "%rs20", 0x80, 0xff80),
        ("cvt.sat.s8.s32", "%r1", "%rs20", 300, 127),
        ("cvt.sat.u8.s32", "%r1", "%rs20", u64::from(-3i32 as u32), 0),
    ] {
        let got = run(op, from, to, input);
        assert_eq!(
            got, expected,
            "{op} of {input:#x}: got {got:#x}, expected {expected:#x}"
        );
    }
    let packed = "cvt.rn.bf16x2.f32 %r20, %f1, %f2;\ncvt.u64.u32 %rd40, %r20;";
    // The first goes to the upper half.
    assert_eq!(evaluate(packed, &[f(1.0), f(2.0)]), 0x3f80_4000);
    // Each half as if alone: ties to even, and any NaN becomes the canonical one.
    for (ty, tie, ties) in [
        ("bf16", 2f32.powi(-8), 0x3f80_3f82),
        ("f16", 2f32.powi(-11), 0x3c00_3c02),
    ] {
        let op = format!("cvt.rn.{ty}x2.f32 %r20, %f1, %f2;\ncvt.u64.u32 %rd40, %r20;");
        assert_eq!(evaluate(&op, &[f(1.0 + tie), f(1.0 + 3.0 * tie)]), ties);
        let nan = u64::from(0xffc0_1234u32);
        assert_eq!(evaluate(&op, &[nan, f(-0.0)]), 0x7fff_8000);
        assert_eq!(evaluate(&op, &[f(0.0), nan]), 0x0000_7fff);
    }
}

#[test]
fn comparisons_with_nan_and_sign() {
    let run = |op: &str, inputs: &[u64]| {
        let letter = if op.contains(".f32") { "f" } else { "r" };
        evaluate(
            &format!("{op} %p1, %{letter}1, %{letter}2;\nselp.u64 %rd40, 1, 0, %p1;"),
            inputs,
        )
    };
    let (nan, one, minus) = (
        u64::from(f32::NAN.to_bits()),
        u64::from(1f32.to_bits()),
        0xffff_ffff,
    );
    for (op, a, b, expected) in [
        ("setp.lt.s32", minus, 1, 1),
        ("setp.lt.u32", minus, 1, 0),
        ("setp.lo.u32", 1, minus, 1),
        ("setp.hs.u32", minus, 1, 1),
        ("setp.ne.b32", 1, 1, 0),
        ("setp.eq.f32", nan, nan, 0),
        ("setp.ne.f32", nan, one, 0),
        ("setp.neu.f32", nan, one, 1),
        ("setp.ltu.f32", nan, one, 1),
        ("setp.lt.f32", nan, one, 0),
        ("setp.geu.f32", one, nan, 1),
        ("setp.num.f32", one, one, 1),
        ("setp.nan.f32", one, nan, 1),
        ("setp.eq.f32", 1, 2, 0),
        ("setp.eq.ftz.f32", 1, 2, 1),
    ] {
        assert_eq!(run(op, &[a, b]), expected, "{op} {a:#x} {b:#x}");
    }
    let both = "setp.eq.u32 %p2, 1, 1;\nsetp.lt.and.u32 %p1|%p3, %r1, %r2, %p2;\n\
                selp.u64 %rd1, 2, 0, %p1;\nselp.u64 %rd2, 1, 0, %p3;\nadd.u64 %rd40, %rd1, %rd2;";
    assert_eq!(evaluate(both, &[1, 5]), 2);
    assert_eq!(evaluate(both, &[5, 1]), 1);
}

#[test]
fn approximations_keep_their_special_values() {
    let f = f32::to_bits;
    let canonical = 0x7fff_ffff;
    table32(
        "f",
        &[
            ("ex2.approx.f32", &[f(3.0)], f(8.0)),
            ("ex2.approx.f32", &[f(f32::NEG_INFINITY)], 0),
            ("ex2.approx.ftz.f32", &[f(-127.0)], 0),
            ("ex2.approx.f32", &[f(-127.0)], 0x0040_0000),
            ("lg2.approx.f32", &[f(8.0)], f(3.0)),
            ("lg2.approx.f32", &[0], f(f32::NEG_INFINITY)),
            ("lg2.approx.f32", &[f(-1.0)], canonical),
            ("rcp.approx.ftz.f32", &[1], f(f32::INFINITY)),
            ("rsqrt.approx.f32", &[f(4.0)], f(0.5)),
            ("rsqrt.approx.f32", &[0], f(f32::INFINITY)),
            ("sqrt.approx.f32", &[f(9.0)], f(3.0)),
            ("sin.approx.f32", &[f(f32::INFINITY)], canonical),
            ("cos.approx.f32", &[0], f(1.0)),
            ("tanh.approx.f32", &[f(f32::INFINITY)], f(1.0)),
            ("div.full.f32", &[f(1.0), f(4.0)], f(0.25)),
        ],
    );
    let run = |op: &str, input: u64| {
        evaluate(
            &format!("{op} %rs20, %rs1;\ncvt.u64.u16 %rd40, %rs20;"),
            &[input],
        )
    };
    assert_eq!(run("ex2.approx.f16", 0x4200), 0x4800);
    assert_eq!(run("ex2.approx.ftz.bf16", 0x4040), 0x4100);
    assert_eq!(run("tanh.approx.bf16", 0x0000), 0x0000);
}

#[test]
fn packing_and_unpacking() {
    assert_eq!(evaluate("mov.b64 %rd40, {%r1, %r2};", &[7, 9]), 9 << 32 | 7);
    assert_eq!(
        evaluate(
            "mov.b64 {%r20, %r21}, %rd1;\ncvt.u64.u32 %rd40, %r21;",
            &[9 << 32 | 7]
        ),
        9
    );
    assert_eq!(
        evaluate(
            "mov.b64 {_, %r21}, %rd1;\ncvt.u64.u32 %rd40, %r21;",
            &[9 << 32 | 7]
        ),
        9
    );
    let body = "mov.b32 %r20, {%rs1, %rs2};\ncvt.u64.u32 %rd40, %r20;";
    assert_eq!(evaluate(body, &[0x1111, 0x2222]), 0x2222_1111);
    let body = "{ .reg .b64 %rd1; mov.u64 %rd1, 5; }\nmov.u64 %rd40, %rd1;";
    assert_eq!(
        evaluate(body, &[3]),
        3,
        "an inner register hides, and then no longer"
    );
}
