//! Typed launch code: one struct per operation, whose fields are the parameters of its kernels.

use anyhow::{Context, Result, bail, ensure};
use std::{collections::BTreeMap, fmt::Write};

/// A kernel as declared in its source.
#[derive(Debug, PartialEq)]
pub(super) struct Kernel {
    pub symbol: String,
    pub parameters: Vec<Parameter>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Parameter {
    pub name: String,
    pub kind: Kind,
}

/// Kind of a parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    Input,
    Output,
    /// A number with this Rust type.
    Number(&'static str),
}

impl Kind {
    fn rust(self) -> &'static str {
        match self {
            Kind::Input => "Input<'a>",
            Kind::Output => "Output<'a>",
            Kind::Number(name) => name,
        }
    }

    /// Type in PTX.
    fn ptx(self) -> &'static str {
        match self {
            Kind::Input | Kind::Output | Kind::Number("u64") => "u64",
            Kind::Number("u32" | "i32") => "u32",
            Kind::Number("f32") => "f32",
            Kind::Number(_) => "f64",
        }
    }
}

/// The kernels of a preprocessed source: `extern "C" __global__ void name(parameters)`.
pub(super) fn declared(preprocessed: &str) -> Result<Vec<Kernel>> {
    let text = without_attributes(&without_line_markers(preprocessed));
    let mut kernels = Vec::new();
    for (at, _) in text.match_indices(GLOBAL) {
        let rest = &text[at + GLOBAL.len()..];
        let Some((head, rest)) = rest.split_once('(') else {
            bail!("a kernel without parameters: {rest:.40}");
        };
        let Some(symbol) = head.trim().strip_prefix("void ") else {
            continue; // A template, which has no symbol of its own.
        };
        if !text[..at].trim_end().ends_with("extern \"C\"") {
            continue;
        }
        let (list, _) = rest
            .split_once(')')
            .with_context(|| format!("{symbol}: parameters without an end"))?;
        let parameters = list.split(',').map(str::trim).filter(|p| !p.is_empty());
        kernels.push(Kernel {
            symbol: symbol.trim().into(),
            parameters: parameters
                .map(|text| parameter(text).with_context(|| symbol.trim().to_string()))
                .collect::<Result<_>>()?,
        });
    }
    Ok(kernels)
}

const GLOBAL: &str = "@global@";

fn without_line_markers(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// Replaces the preprocessed form of `__global__` by a mark, and removes other attributes.
fn without_attributes(text: &str) -> String {
    const ATTRIBUTE: &str = "__attribute__((";
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(ATTRIBUTE) {
        result.push_str(&rest[..at]);
        let body = &rest[at + ATTRIBUTE.len()..];
        let mut depth = 2;
        let end = body.find(|c| {
            match c {
                '(' => depth += 1,
                ')' => depth -= 1,
                _ => {}
            }
            depth == 0
        });
        let end = end.unwrap_or(body.len() - 1);
        if body[..end].trim_end_matches(')').trim() == "global" {
            result.push_str(GLOBAL);
        }
        rest = &body[end + 1..];
    }
    result + rest
}

fn parameter(text: &str) -> Result<Parameter> {
    let words: Vec<&str> = text
        .split(|c: char| c.is_whitespace() || c == '*')
        .filter(|word| !word.is_empty() && !word.starts_with("__restrict"))
        .collect();
    let (&name, types) = words.split_last().context("a parameter without a name")?;
    let kind = match (text.matches('*').count(), types) {
        (1, ["const", _, ..]) => Kind::Input,
        (1, [_, ..]) => Kind::Output,
        (0, ["float"]) => Kind::Number("f32"),
        (0, ["double"]) => Kind::Number("f64"),
        (0, ["int" | "int32_t"]) => Kind::Number("i32"),
        (0, ["unsigned" | "uint32_t"] | ["unsigned", "int"]) => Kind::Number("u32"),
        (0, ["uint64_t"] | ["unsigned", "long", "long"]) => Kind::Number("u64"),
        _ => bail!("`{text}` is no parameter that can be passed"),
    };
    Ok(Parameter {
        name: name.into(),
        kind,
    })
}

/// Checks that the PTX has exactly these kernels, with parameters of these sizes.
pub(super) fn check(kernels: &[Kernel], ptx: &str) -> Result<()> {
    let mut entries = BTreeMap::new();
    for part in ptx.split(".visible .entry ").skip(1) {
        let (symbol, rest) = part.split_once('(').context("an entry without `(`")?;
        let (list, _) = rest.split_once(')').context("an entry without `)`")?;
        let types: Vec<&str> = list
            .split(',')
            .filter_map(|parameter| parameter.trim().strip_prefix(".param .")?.split(' ').next())
            .collect();
        entries.insert(symbol.trim(), types);
    }
    ensure!(
        entries.len() == kernels.len(),
        "{} kernels in the source, {} in the PTX",
        kernels.len(),
        entries.len()
    );
    for kernel in kernels {
        let expected: Vec<&str> = kernel.parameters.iter().map(|p| p.kind.ptx()).collect();
        let found = entries.get(kernel.symbol.as_str());
        ensure!(
            found == Some(&expected),
            "{}: {expected:?} in the source, {found:?} in the PTX",
            kernel.symbol
        );
    }
    Ok(())
}

/// Splits a symbol into operation and variant: the variant follows the direction or, if there is
/// none, consists of the element types, widths and sizes at the end.
fn split(symbol: &str) -> (&str, &str) {
    let is_variant = |part: &str| {
        matches!(part, "bf16") || {
            let digits = part.trim_start_matches(|c: char| c.is_ascii_lowercase());
            part.len() == digits.len() + 1 && !digits.is_empty() && digits.parse::<u32>().is_ok()
        }
    };
    for direction in ["_forward", "_backward"] {
        if let Some((name, variant)) = symbol.split_once(direction)
            && (variant.is_empty() || variant.starts_with('_'))
        {
            let operation = &symbol[..name.len() + direction.len()];
            return (operation, variant.trim_start_matches('_'));
        }
    }
    let mut end = symbol.len();
    while let Some((rest, part)) = symbol[..end].rsplit_once('_') {
        if !is_variant(part) {
            break;
        }
        end = rest.len();
    }
    (&symbol[..end], symbol[end..].trim_start_matches('_'))
}

/// The Rust source beside a `kernel.cu`, before rustfmt.
pub(super) fn generate(kernels: &[Kernel]) -> Result<String> {
    let mut operations: BTreeMap<&str, (Vec<&str>, &[Parameter])> = BTreeMap::new();
    for kernel in kernels {
        let (operation, variant) = split(&kernel.symbol);
        let (variants, parameters) = operations
            .entry(operation)
            .or_insert((Vec::new(), &kernel.parameters));
        ensure!(
            *parameters == kernel.parameters,
            "`{}` has other parameters than other variants of `{operation}`",
            kernel.symbol
        );
        variants.push(variant);
    }
    let any = |wanted: Kind| {
        let all = kernels.iter().flat_map(|kernel| &kernel.parameters);
        all.into_iter().any(|parameter| parameter.kind == wanted)
    };
    let mut used = String::new();
    for (kind, name) in [(Kind::Input, "Input"), (Kind::Output, "Output")] {
        if any(kind) {
            write!(used, "{name}, ")?;
        }
    }
    let mut text = format!(
        "//! Launches of the kernels in kernel.cu. Written by `cargo xtask ptx`; changes are lost.\n\n\
         use tightrope_device::cuda::{{{used}Kernel, Module, Parameter}};\n\n\
         /// The kernels and their PTX.\n\
         pub(super) static MODULE: Module = Module {{ name: module_path!(), \
         ptx: include_str!(\"kernel.ptx\"), kernels: &[\n"
    );
    for kernel in kernels {
        writeln!(text, "{:?},", kernel.symbol)?;
    }
    text.push_str("] };\n");
    for (operation, (variants, parameters)) in operations {
        let name = camel_case(operation);
        let has_pointers = parameters
            .iter()
            .any(|p| !matches!(p.kind, Kind::Number(_)));
        let lifetime = if has_pointers { "<'a>" } else { "" };
        let anonymous = if has_pointers { "<'_>" } else { "" };
        let variants = variants.join("`, `");
        writeln!(
            text,
            "\n/// Parameters of `{operation}`. Variants: `{variants}`.\n#[derive(Debug)]\n\
             pub(super) struct {name}{lifetime} {{"
        )?;
        for Parameter { name, kind } in parameters {
            writeln!(text, "pub {name}: {},", kind.rust())?;
        }
        let count = parameters.len();
        writeln!(
            text,
            "}}\n\nimpl Kernel<{count}> for {name}{anonymous} {{\n\
             const MODULE: &'static Module = &MODULE;\n\
             const OPERATION: &'static str = {operation:?};\n\n\
             fn parameters(self) -> [Parameter; {count}] {{\n["
        )?;
        for parameter in parameters {
            write!(text, "self.{}.into(),", parameter.name)?;
        }
        writeln!(text, "]\n}}\n}}")?;
    }
    Ok(text)
}

fn camel_case(name: &str) -> String {
    let capital = |word: &str| {
        let (first, rest) = word.split_at(1);
        first.to_uppercase() + rest
    };
    name.split('_').map(capital).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = r#"
# 1 "kernel.cu"
template <typename T> __attribute__((global)) void body(const T* x);
extern "C" __attribute__((global)) void __attribute__((launch_bounds((256), (4)))) scale_f32_u32(
    const float* __restrict__ x, float* y, float factor, uint64_t len) { f(x); }
extern "C" __attribute__((global)) void scale_bf16_u32(
    const __nv_bfloat16* x, __nv_bfloat16* y, float factor, unsigned long long len) {}
"#;

    #[test]
    fn kernels_are_read_from_the_source() {
        let kernels = declared(SOURCE).unwrap();
        assert_eq!(kernels.len(), 2);
        assert_eq!(kernels[0].symbol, "scale_f32_u32");
        let parameter = |name: &str, kind| Parameter {
            name: name.into(),
            kind,
        };
        let expected = [
            parameter("x", Kind::Input),
            parameter("y", Kind::Output),
            parameter("factor", Kind::Number("f32")),
            parameter("len", Kind::Number("u64")),
        ];
        assert_eq!(kernels[0].parameters, expected);
        assert_eq!(kernels[1].parameters, expected);
        assert!(declared(r#"extern "C" __attribute__((global)) void f(bool x) {}"#).is_err());
    }

    #[test]
    fn variants_share_a_struct_or_are_refused() {
        let mut kernels = declared(SOURCE).unwrap();
        let text = generate(&kernels).unwrap();
        assert_eq!(text.matches("pub(super) struct Scale<'a>").count(), 1);
        assert!(text.contains("pub factor: f32"));
        kernels[1].parameters.pop();
        let error = generate(&kernels).unwrap_err().to_string();
        assert!(error.contains("scale_bf16_u32"), "{error}");
    }

    #[test]
    fn symbols_split_into_operation_and_variant() {
        assert_eq!(split("rope_forward_bf16_u64"), ("rope_forward", "bf16_u64"));
        assert_eq!(split("a_forward_f32_d128"), ("a_forward", "f32_d128"));
        assert_eq!(
            split("glu_backward_gelu_erf_f16"),
            ("glu_backward", "gelu_erf_f16")
        );
        assert_eq!(split("a_forward"), ("a_forward", ""));
        assert_eq!(split("a_forwards_f32"), ("a_forwards", "f32"));
        assert_eq!(split("nf4_decode_f16"), ("nf4_decode", "f16"));
        assert_eq!(split("adamw"), ("adamw", ""));
    }

    #[test]
    fn ptx_with_other_parameters_is_refused() {
        let kernels = declared(SOURCE).unwrap();
        let entry = |symbol: &str, types: [&str; 4]| {
            let list = types.map(|t| format!("\t.param .{t} p")).join(",\n");
            format!(".visible .entry {symbol}(\n{list}\n)\n{{}}\n")
        };
        let good = ["u64 .ptr .align 1", "u64 .ptr .align 1", "f32", "u64"];
        let bf16 = entry("scale_bf16_u32", good);
        check(&kernels, &(entry("scale_f32_u32", good) + &bf16)).unwrap();
        let bad = ["u64", "u64", "u32", "u64"];
        assert!(check(&kernels, &(entry("scale_f32_u32", bad) + &bf16)).is_err());
        assert!(check(&kernels, &bf16).is_err());
    }
}
