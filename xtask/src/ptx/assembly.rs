//! Resources of a kernel on each architecture, from the output of the assembler.

use super::{
    architecture::{ARCHITECTURES, Architecture, Block},
    expectations::{Expectations, is_instruction},
    toolchain::{self, Toolchain},
};
use crate::digest::sha256;
use anyhow::{Context, Result, ensure};
use rayon::prelude::*;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

/// Folder of the tools' reports.
const REPORTS: &str = "target/cuda/reports";

/// One kernel on one architecture.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Usage {
    pub registers: u32,
    /// Size of static shared memory in bytes.
    pub shared: u32,
    pub barriers: u32,
    /// Size of a thread's local memory in bytes, including spills.
    pub stack: u32,
    pub spill_stores: u32,
    pub spill_loads: u32,
    /// Instructions with their modifiers.
    pub opcodes: BTreeSet<String>,
}

/// The kernels of one `kernel.cu`.
pub(super) struct Module {
    /// Path of the source, relative to the root.
    pub source: PathBuf,
    /// Kernels by symbol.
    pub kernels: BTreeMap<String, Kernel>,
}

/// A kernel on every architecture.
pub(super) struct Kernel {
    /// Number of threads in a block, from `__launch_bounds__`.
    pub threads: u32,
    /// Size of dynamic shared memory in bytes, from its source.
    pub dynamic_shared: u32,
    /// Instructions that the kernel must have, from its source.
    pub expected: Vec<String>,
    /// Usage in the order of [`ARCHITECTURES`].
    pub usage: Vec<Usage>,
}

impl Kernel {
    /// Resources of a block, by architecture.
    pub(super) fn blocks(&self) -> impl Iterator<Item = (&'static Architecture, Block)> {
        ARCHITECTURES.iter().zip(&self.usage).map(|(on, usage)| {
            let block = Block {
                threads: self.threads,
                registers: usage.registers,
                shared: usage.shared + self.dynamic_shared,
                barriers: usage.barriers,
            };
            (on, block)
        })
    }

    /// Broken rules, with the architectures on which this kernel breaks each.
    fn problems(&self) -> BTreeMap<String, Vec<String>> {
        let mut problems: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for ((on, block), usage) in self.blocks().zip(&self.usage) {
            let mut add = |text| problems.entry(text).or_default().push(on.name());
            let Usage {
                stack,
                spill_stores: stores,
                spill_loads: loads,
                ..
            } = usage;
            if stack + stores + loads > 0 {
                add(format!(
                    "{stack} bytes of local memory, {stores} of spill stores, {loads} of spill loads"
                ));
            }
            let has = |wanted: &str| {
                let mut opcodes = usage.opcodes.iter();
                opcodes.any(|found| is_instruction(wanted, found))
            };
            for wanted in self.expected.iter().filter(|wanted| !has(wanted)) {
                add(format!("no {wanted}"));
            }
            if on.occupancy(block) == 0 {
                add(format!(
                    "no block fits ({} threads, {} registers, {} bytes of shared memory of {})",
                    block.threads,
                    block.registers,
                    block.shared,
                    on.shared_per_block()
                ));
            }
        }
        problems
    }
}

/// Assembles the PTX beside every source for every architecture, on all cores.
pub(super) fn assemble(
    toolchain: &Toolchain,
    root: &Path,
    sources: &[PathBuf],
) -> Result<Vec<Module>> {
    let texts = sources
        .iter()
        .map(|source| {
            let paths = [root.join(source), root.join(source).with_extension("ptx")];
            let [source, ptx] = paths
                .map(|path| fs::read_to_string(&path).with_context(|| path.display().to_string()));
            Ok((source?, ptx?))
        })
        .collect::<Result<Vec<_>>>()?;
    let jobs: Vec<(&String, &Architecture)> = texts
        .iter()
        .flat_map(|(_, ptx)| ARCHITECTURES.iter().map(move |on| (ptx, on)))
        .collect();
    let results: Vec<_> = jobs
        .par_iter()
        .map(|(ptx, on)| parse(&report(toolchain, root, ptx, &on.name())?))
        .collect();
    let mut results = results.into_iter();
    let mut modules = Vec::new();
    for (source, (text, ptx)) in sources.iter().zip(&texts) {
        let usage = results.by_ref().take(ARCHITECTURES.len());
        let usage = usage.collect::<Result<Vec<_>>>();
        let kernels = usage.and_then(|usage| kernels(text, ptx, usage));
        modules.push(Module {
            source: source.clone(),
            kernels: kernels.with_context(|| source.display().to_string())?,
        });
    }
    Ok(modules)
}

/// Kernels of a source and its PTX, with their usage on each architecture.
fn kernels(
    source: &str,
    ptx: &str,
    mut usage: Vec<BTreeMap<String, Usage>>,
) -> Result<BTreeMap<String, Kernel>> {
    let threads = threads(ptx)?;
    let symbols = threads.keys().map(String::as_str).collect();
    let says = Expectations::read(source, &symbols)?;
    let mut kernels = BTreeMap::new();
    for (symbol, &threads) in &threads {
        let usage = usage.iter_mut().map(|kernels| kernels.remove(symbol));
        let usage = usage.collect::<Option<Vec<_>>>();
        let usage = usage.with_context(|| format!("the assembler told nothing of {symbol}"))?;
        let expected = says.instructions(symbol).into_iter();
        let kernel = Kernel {
            threads,
            dynamic_shared: says.dynamic_shared(symbol),
            expected: expected.map(str::to_owned).collect(),
            usage,
        };
        kernels.insert(symbol.clone(), kernel);
    }
    Ok(kernels)
}

/// Output of the tools for a PTX on an architecture. It is kept below `target`, because it depends
/// only on the PTX and the tools.
fn report(toolchain: &Toolchain, root: &Path, ptx: &str, architecture: &str) -> Result<String> {
    let folder = root.join(REPORTS);
    let identity = toolchain::identity();
    let flags = [toolchain::ASSEMBLER_FLAGS, toolchain::DISASSEMBLER_FLAGS]
        .concat()
        .join(" ");
    let key = [&identity, &flags, architecture, ptx].map(str::as_bytes);
    let kept = folder.join(sha256(&key));
    if let Ok(text) = fs::read_to_string(&kept) {
        return Ok(text);
    }
    fs::create_dir_all(&folder)?;
    let scratch = tempfile::tempdir()?;
    let [source, cubin] = ["kernel.ptx", "kernel.cubin"].map(|name| scratch.path().join(name));
    fs::write(&source, ptx)?;
    let mut text = toolchain.assemble(&source, architecture, &cubin)?;
    text.push_str(&opcodes(&toolchain.disassemble(&cubin)?)?);
    let mut file = tempfile::NamedTempFile::new_in(&folder)?;
    file.write_all(text.as_bytes())?;
    file.persist(&kept)?;
    Ok(text)
}

/// Returns an error that names every kernel that breaks a rule, with its architecture.
pub(super) fn check(modules: &[Module]) -> Result<()> {
    let mut problems = String::new();
    for module in modules {
        let source = module.source.display();
        for (symbol, kernel) in &module.kernels {
            for (text, on) in kernel.problems() {
                writeln!(problems, "{source}: {symbol} on {}: {text}", on.join(", "))?;
            }
        }
    }
    ensure!(
        problems.is_empty(),
        "kernels that break the rules of docs/cuda.md:\n{}",
        problems.trim_end()
    );
    Ok(())
}

/// Number of kernels, and the kernel with the lowest occupancy.
pub(super) fn summary(modules: &[Module]) -> String {
    let kernels = || modules.iter().flat_map(|module| &module.kernels);
    let all = kernels().flat_map(|(symbol, kernel)| {
        let of =
            move |(on, block): (&'static Architecture, _)| (on.occupancy(block), symbol, on.name());
        kernel.blocks().map(of)
    });
    let least = all
        .min()
        .map(|(percent, symbol, on)| format!("{percent} % ({symbol} on {on})"));
    format!(
        "{} modules as their sources say, {} kernels on {} architectures without local memory, \
         least occupancy {}",
        modules.len(),
        kernels().count(),
        ARCHITECTURES.len(),
        least.unwrap_or_default()
    )
}

/// Makes a line for each kernel of a disassembly: its symbol and its instructions, each once.
fn opcodes(disassembly: &str) -> Result<String> {
    let mut kernels: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut found = None;
    for line in disassembly.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some(".section") => {
                let section = words.next().and_then(|word| word.strip_prefix(".text."));
                let symbol = section.and_then(|section| section.split(',').next());
                found = symbol.map(|symbol| kernels.entry(symbol).or_default());
            }
            // The address; a predicate may follow it.
            Some(word) if word.starts_with("/*") && word.ends_with("*/") => {
                let opcode = words.find(|word| !word.starts_with('@'));
                let found = found.as_mut().context("an instruction of no kernel")?;
                found.extend(opcode.map(|opcode| opcode.trim_end_matches(';')));
            }
            _ => {}
        }
    }
    let line = |(symbol, opcodes): (_, BTreeSet<&str>)| {
        let opcodes: Vec<&str> = opcodes.into_iter().collect();
        format!("{OPCODES}{symbol} {}\n", opcodes.join(" "))
    };
    Ok(kernels.into_iter().map(line).collect())
}

const OPCODES: &str = "instructions of ";

/// Parses the output of `ptxas -v`, and the lines of [`opcodes`]. Functions that a kernel calls
/// count for the kernel.
fn parse(log: &str) -> Result<BTreeMap<String, Usage>> {
    let mut kernels: BTreeMap<String, Usage> = BTreeMap::new();
    let mut symbol = String::new();
    for line in log.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            let (name, _) = rest.split_once('\'').context("a name without an end")?;
            symbol = name.into();
            kernels.insert(symbol.clone(), Usage::default());
        } else if let Some(words) = line.strip_prefix(OPCODES) {
            let mut words = words.split(' ').map(str::to_owned);
            let usage = words.next().and_then(|symbol| kernels.get_mut(&symbol));
            usage.with_context(|| line.to_owned())?.opcodes = words.collect();
        } else if line.contains("bytes stack frame") || line.contains("Used ") {
            let usage = kernels.get_mut(&symbol);
            let usage = usage.with_context(|| format!("of no kernel: {line}"))?;
            let (_, items) = line.rsplit_once(" : ").unwrap_or(("", line));
            for item in items.split(',') {
                usage.take(item.trim())?;
            }
        }
    }
    Ok(kernels)
}

impl Usage {
    /// One item, such as `32 bytes smem`.
    fn take(&mut self, item: &str) -> Result<()> {
        let used = item.strip_prefix("Used ").or(item.strip_prefix("used "));
        let item = used.unwrap_or(item);
        let (number, what) = item.split_once(' ').with_context(|| item.to_owned())?;
        let number: u32 = number.parse().with_context(|| item.to_owned())?;
        match what {
            "registers" => self.registers = number,
            "barriers" => self.barriers = number,
            "bytes smem" => self.shared = number,
            "bytes stack frame" => self.stack += number,
            "bytes spill stores" => self.spill_stores += number,
            "bytes spill loads" => self.spill_loads += number,
            _ => {} // Constants, and the stack again.
        }
        Ok(())
    }
}

/// Number of threads in a block of each kernel.
fn threads(ptx: &str) -> Result<BTreeMap<String, u32>> {
    let mut kernels = BTreeMap::new();
    for part in ptx.split(".visible .entry ").skip(1) {
        let (symbol, rest) = part.split_once('(').context("an entry without `(`")?;
        let (head, _) = rest.split_once('{').context("an entry without `{`")?;
        let line = head.lines().find_map(|line| {
            let line = line.trim();
            line.strip_prefix(".maxntid")
                .or_else(|| line.strip_prefix(".reqntid"))
        });
        let line = line.with_context(|| format!("{symbol} has no __launch_bounds__"))?;
        let sizes = line.split(',').map(|size| size.trim().parse::<u32>());
        let threads = sizes.product::<Result<u32, _>>();
        kernels.insert(symbol.trim().into(), threads.context("threads of a block")?);
    }
    Ok(kernels)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'a_f32' for 'sm_80'
ptxas info    : Function properties for a_f32
    24 bytes stack frame, 20 bytes spill stores, 28 bytes spill loads
ptxas info    : Function properties for called
    16 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 48 registers, used 1 barriers, 40 bytes cumulative stack size, 32 bytes smem, 444 bytes cmem[0]
ptxas info    : Compile time = 36.556 ms
ptxas info    : Compiling entry function 'b' for 'sm_80'
ptxas info    : Function properties for b
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 9 registers, used 0 barriers, 384 bytes cmem[0]
";

    const DISASSEMBLY: &str = "\
\t.target\tsm_80

//--------------------- .text.a_f32 --------------------------
\t.section\t.text.a_f32,\"ax\",@progbits
a_f32:
        /*0000*/                   IMAD.MOV.U32 R1, RZ, RZ, c[0x0][0x28] ;
        /*0010*/              @!P0 LDG.E.128.CONSTANT R4, [R2.64] ;
        /*0020*/               @P0 EXIT ;
.L_x_0:
        /*0030*/                   NOP;
\t.section\t.text.b,\"ax\",@progbits
        /*0000*/                   EXIT ;
";

    /// One kernel, `k`.
    fn module(dynamic_shared: u32, expected: &[&str], usage: Vec<Usage>) -> Module {
        let kernel = Kernel {
            threads: 256,
            dynamic_shared,
            expected: expected.iter().map(|&text| text.into()).collect(),
            usage,
        };
        Module {
            source: "kernel.cu".into(),
            kernels: [("k".to_owned(), kernel)].into(),
        }
    }

    #[test]
    fn instructions_are_read_and_missing_ones_named() {
        let text = opcodes(DISASSEMBLY).unwrap();
        let usage = parse(&(LOG.to_owned() + &text)).unwrap();
        let expected = ["EXIT", "IMAD.MOV.U32", "LDG.E.128.CONSTANT", "NOP"];
        let a = Vec::from_iter(&usage["a_f32"].opcodes);
        assert_eq!(a, expected);
        let b = usage["b"].clone();
        assert_eq!(Vec::from_iter(&b.opcodes), ["EXIT"]);
        check(&[module(0, &["EXIT"], vec![b.clone()])]).unwrap();
        let error = check(&[module(0, &["EXIT", "LDG.128"], vec![b])]).unwrap_err();
        let error = error.to_string();
        assert!(
            error.ends_with("kernel.cu: k on sm_80: no LDG.128"),
            "{error}"
        );
        assert!(opcodes("        /*0000*/   EXIT ;").is_err());
    }

    #[test]
    fn dynamic_shared_memory_counts() {
        let usage = parse(LOG).unwrap()["b"].clone();
        let percent = |bytes| {
            let module = module(bytes, &[], vec![usage.clone()]);
            let (on, block) = module.kernels["k"].blocks().next().unwrap();
            on.occupancy(block)
        };
        assert_eq!((percent(0), percent(48 * 1024)), (100, 37));
    }

    #[test]
    fn usage_is_read_and_what_wastes_is_named() {
        let mut usage = parse(LOG).unwrap();
        let a = Usage {
            registers: 48,
            shared: 32,
            barriers: 1,
            stack: 40,
            spill_stores: 20,
            spill_loads: 28,
            opcodes: BTreeSet::new(),
        };
        assert_eq!(usage["a_f32"], a);
        let b = usage.remove("b").unwrap();
        assert_eq!(b.registers, 9);
        let module = |usage: Vec<Usage>| module(0, &[], usage);
        check(&[module(vec![b.clone(), b.clone()])]).unwrap();
        let error = check(&[module(vec![b.clone(), a])])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("kernel.cu: k on sm_86: 40 bytes of local"),
            "{error}"
        );
        let large = Usage {
            shared: 100 * 1024,
            ..b.clone()
        };
        let error = check(&[module(vec![large.clone(), large])]).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("k on sm_86: no block fits"), "{error}");
        assert!(!error.contains("sm_80"), "{error}");
        assert!(parse("ptxas info : Used 9 registers").is_err());
    }

    #[test]
    fn threads_are_those_of_the_launch_bounds() {
        let ptx = ".visible .entry a(\n.param .u64 p\n)\n.maxntid 32, 4, 1\n.minnctapersm 2\n{\nret;\n}\n\
            .visible .entry b()\n.reqntid 64\n{\n}";
        let found = threads(ptx).unwrap();
        assert_eq!((found["a"], found["b"]), (128, 64));
        let error = threads(".visible .entry c()\n{\n.maxntid 4\n}").unwrap_err();
        assert_eq!(error.to_string(), "c has no __launch_bounds__");
    }
}
