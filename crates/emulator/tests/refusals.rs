//! Instructions that are not modelled are refused when a module is loaded, with their line.
mod support;

#[test]
fn what_is_not_modelled_is_refused_with_its_line() {
    for (instruction, part) in [
        ("fma.rz.f64 %fd1, %fd2, %fd3, %fd4;", "fma"),
        ("add.f32.nonsense %f1, %f2, %f3;", "nonsense"),
        ("wgmma.fence.sync.aligned;", "wgmma"),
        (
            "mma.sync.aligned.m8n8k4.row.col.f32.f16.f16.f32 {%f1}, {%r1}, {%r2}, {%f2};",
            "mma",
        ),
        (
            "ld.global.v4.f64 {%fd1, %fd2, %fd3, %fd4}, [%rd1];",
            "32 bytes",
        ),
        ("add.u32 %r1, %r2;", "takes 2"),
        ("mov.u32 %r1, %nothing;", "%nothing"),
        ("bra nowhere;", "nowhere"),
        ("call vprintf, (%r1);", "vprintf"),
    ] {
        let text = support::kernel("", instruction);
        let mut memory = tightrope_emulator::DeviceMemory::new();
        let error = match tightrope_emulator::Module::load(&text, &mut memory) {
            Err(error) => error.to_string(),
            Ok(_) => panic!("`{instruction}` is accepted"),
        };
        assert!(error.contains(part), "{instruction}: {error}");
        assert!(error.contains("PTX line 12"), "{instruction}: {error}");
    }
}

/// A module that would exhaust the stack or the memory of its reader.
#[test]
fn what_knows_no_bounds_is_refused() {
    let deep = |open: &str, times| support::kernel("", &open.repeat(times));
    let large = ".version 9.0\n.target sm_80\n.global .align 4 .b8 x[40000000000];\n";
    for (text, part) in [
        (deep("{", 100_000), "64 brackets"),
        (
            deep(&format!("mov.u32 %r1, {}", "{".repeat(100_000)), 1),
            "64 brackets",
        ),
        (
            deep(&format!("call f, {}", "(".repeat(100_000)), 1),
            "64 brackets",
        ),
        (large.to_owned(), "256 MiB"),
    ] {
        let mut memory = tightrope_emulator::DeviceMemory::new();
        let error = match tightrope_emulator::Module::load(&text, &mut memory) {
            Err(error) => error.to_string(),
            Ok(_) => panic!("{:.80} is accepted", text),
        };
        assert!(error.contains(part), "{error:.200}");
    }
}
