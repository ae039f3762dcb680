//! Approximate functions. PTX gives error bounds and no values; here they give the nearest `f32`
//! (of the result in `f64`, or the C library's if that is within one unit in the last place), so a
//! tolerance must leave room for the bounds, which the README lists.
use super::float::{canonical, flush};
use super::{LaneFn, Resolved, lanes};
use crate::decode::Modifiers;
use crate::ptx::types::ScalarType::*;

/// `$e` plain and with `.ftz`.
macro_rules! flavours {
    ($ftz:expr, |$a:ident| $e:expr) => {
        if $ftz {
            lanes!(|$a: f32| {
                let $a = flush($a);
                canonical(flush($e))
            })
        } else {
            lanes!(|$a: f32| canonical($e))
        }
    };
}

pub(super) fn resolve(opcode: &str, modifiers: &mut Modifiers) -> Option<Resolved> {
    let bits = modifiers.ty()?.bits();
    let function: LaneFn = match modifiers.ty()? {
        F32 if matches!(opcode, "ex2" | "lg2" | "rsqrt" | "sin" | "cos" | "tanh") => {
            modifiers.take("approx").then_some(())?;
            let ftz = modifiers.take("ftz");
            match opcode {
                "ex2" => flavours!(ftz, |a| a.exp2()),
                "lg2" => flavours!(ftz, |a| a.log2()),
                "rsqrt" => flavours!(ftz, |a| (1.0 / f64::from(a).sqrt()) as f32),
                "sin" => flavours!(ftz, |a| f64::from(a).sin() as f32),
                "cos" => flavours!(ftz, |a| f64::from(a).cos() as f32),
                _ => flavours!(ftz, |a| f64::from(a).tanh() as f32),
            }
        }
        F64 if opcode == "rsqrt" => {
            modifiers.take("approx").then_some(())?;
            modifiers.take("ftz");
            lanes!(|a: f64| 1.0 / a.sqrt())
        }
        _ => return None,
    };
    Resolved::new(function, 1, bits)
}
