//! A machine for tests: memory, one module, launches in sequence.
#![allow(dead_code, reason = "each test file uses a part")]
use tightrope_emulator::{DeviceMemory, FindingKind, LaunchConfig, LaunchReport, Module, Order};

/// One kernel argument.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Arg {
    U32(u32),
    U64(u64),
    F32(f32),
}

/// Parameters laid out one after another at their own alignment.
pub(crate) fn pack(args: &[Arg]) -> Vec<u8> {
    let mut out = Vec::new();
    for arg in args {
        let bytes: Vec<u8> = match arg {
            Arg::U32(v) => v.to_le_bytes().to_vec(),
            Arg::U64(v) => v.to_le_bytes().to_vec(),
            Arg::F32(v) => v.to_le_bytes().to_vec(),
        };
        out.resize(out.len().next_multiple_of(bytes.len()), 0);
        out.extend(bytes);
    }
    out
}

pub(crate) struct Machine {
    pub memory: DeviceMemory,
    pub module: Module,
    sequence: u32,
}

impl Machine {
    pub(crate) fn new(ptx: &str) -> Self {
        let mut memory = DeviceMemory::new();
        let module = Module::load(ptx, &mut memory).unwrap_or_else(|e| panic!("{e}\n{ptx}"));
        Self {
            memory,
            module,
            sequence: 0,
        }
    }

    pub(crate) fn order(&mut self) -> Order {
        self.sequence += 1;
        Order::sequential(self.sequence)
    }

    pub(crate) fn upload_bytes(&mut self, bytes: &[u8]) -> u64 {
        let address = self.memory.allocate(bytes.len() as u64, "input").unwrap();
        let order = self.order();
        self.memory.write(address, bytes, &order).unwrap();
        address
    }

    pub(crate) fn upload_u32(&mut self, values: &[u32]) -> u64 {
        self.upload_bytes(
            &values
                .iter()
                .flat_map(|v| v.to_le_bytes())
                .collect::<Vec<_>>(),
        )
    }

    pub(crate) fn upload_f32(&mut self, values: &[f32]) -> u64 {
        self.upload_bytes(
            &values
                .iter()
                .flat_map(|v| v.to_le_bytes())
                .collect::<Vec<_>>(),
        )
    }

    pub(crate) fn upload_u16(&mut self, values: &[u16]) -> u64 {
        self.upload_bytes(
            &values
                .iter()
                .flat_map(|v| v.to_le_bytes())
                .collect::<Vec<_>>(),
        )
    }

    pub(crate) fn output(&mut self, bytes: u64) -> u64 {
        self.memory.allocate(bytes, "output").unwrap()
    }

    pub(crate) fn download_bytes(&mut self, address: u64, bytes: usize) -> Vec<u8> {
        let mut out = vec![0; bytes];
        let order = self.order();
        self.memory
            .read(address, &mut out, &order)
            .unwrap_or_else(|e| panic!("{e}"));
        out
    }

    pub(crate) fn download_u32(&mut self, address: u64, count: usize) -> Vec<u32> {
        let bytes = self.download_bytes(address, count * 4);
        bytes
            .chunks_exact(4)
            .map(|b| u32::from_le_bytes(b.try_into().unwrap()))
            .collect()
    }

    pub(crate) fn download_u64(&mut self, address: u64, count: usize) -> Vec<u64> {
        let bytes = self.download_bytes(address, count * 8);
        bytes
            .chunks_exact(8)
            .map(|b| u64::from_le_bytes(b.try_into().unwrap()))
            .collect()
    }

    pub(crate) fn download_f32(&mut self, address: u64, count: usize) -> Vec<f32> {
        self.download_u32(address, count)
            .into_iter()
            .map(f32::from_bits)
            .collect()
    }

    pub(crate) fn download_u16(&mut self, address: u64, count: usize) -> Vec<u16> {
        let bytes = self.download_bytes(address, count * 2);
        bytes
            .chunks_exact(2)
            .map(|b| u16::from_le_bytes(b.try_into().unwrap()))
            .collect()
    }

    pub(crate) fn launch(
        &mut self,
        kernel: &str,
        config: &LaunchConfig,
        args: &[Arg],
    ) -> LaunchReport {
        let order = self.order();
        self.module
            .launch(kernel, &self.memory, &order, &pack(args), config)
            .unwrap_or_else(|e| panic!("{e}"))
    }

    /// A launch that must find nothing.
    pub(crate) fn clean(
        &mut self,
        kernel: &str,
        config: &LaunchConfig,
        args: &[Arg],
    ) -> LaunchReport {
        let report = self.launch(kernel, config, args);
        for finding in &report.findings {
            eprintln!("{finding}");
        }
        assert!(
            report.findings.is_empty(),
            "{kernel}: {} findings",
            report.findings.len()
        );
        report
    }

    /// A launch that must find at least one mistake; the first must be of this kind.
    pub(crate) fn caught(
        &mut self,
        kernel: &str,
        config: &LaunchConfig,
        args: &[Arg],
        kind: FindingKind,
    ) -> String {
        let report = self.launch(kernel, config, args);
        let Some(first) = report.findings.first() else {
            panic!("{kernel}: nothing found")
        };
        assert_eq!(first.kind, kind, "{first}");
        first.to_string()
    }
}

/// A module of one kernel `k` with the given parameters and body, and registers of every kind.
pub(crate) fn kernel(parameters: &str, body: &str) -> String {
    module(&format!(
        ".visible .entry k({parameters})\n{{\n\
         .reg .pred %p<20>;\n.reg .b16 %rs<40>;\n.reg .b32 %r<60>;\n.reg .f32 %f<60>;\n\
         .reg .b64 %rd<60>;\n.reg .f64 %fd<20>;\n{body}\nret;\n}}"
    ))
}

pub(crate) fn module(text: &str) -> String {
    format!(".version 9.0\n.target sm_80\n.address_size 64\n{text}\n")
}

/// Runs an instruction sequence in one thread. `%rd1`, `%rd2` and so on hold the inputs (also in
/// `%r1`, `%rs1`, …, truncated); the sequence leaves its result in `%rd40`.
pub(crate) fn evaluate(body: &str, inputs: &[u64]) -> u64 {
    let mut text = String::from("ld.param.u64 %rd0, [out];\n");
    for (i, input) in inputs.iter().enumerate() {
        let n = i + 1;
        text += &format!(
            "mov.u64 %rd{n}, {input};\ncvt.u32.u64 %r{n}, %rd{n};\ncvt.u16.u64 %rs{n}, %rd{n};\n"
        );
        text += &format!("mov.b32 %f{n}, %r{n};\nmov.b64 %fd{n}, %rd{n};\n");
    }
    text += body;
    text += "\nst.global.u64 [%rd0], %rd40;\n";
    let mut machine = Machine::new(&kernel(".param .u64 out", &text));
    let out = machine.output(8);
    machine.clean(
        "k",
        &LaunchConfig::new([1, 1, 1], [1, 1, 1]),
        &[Arg::U64(out)],
    );
    machine.download_u64(out, 1)[0]
}

/// The same for an operation `op d, a, b, …` on 32-bit registers named by their letter.
pub(crate) fn evaluate32(op: &str, letter: &str, inputs: &[u32]) -> u32 {
    let names = (1..=inputs.len())
        .map(|i| format!(", %{letter}{i}"))
        .collect::<String>();
    let body =
        format!("{op} %{letter}20{names};\nmov.b32 %r21, %{letter}20;\ncvt.u64.u32 %rd40, %r21;");
    let wide: Vec<u64> = inputs.iter().map(|v| u64::from(*v)).collect();
    evaluate(&body, &wide) as u32
}
