//! The device and the precision of a run.

use crate::RunError;
use tightrope_device::Cpu;
#[cfg(feature = "cuda")]
use tightrope_device::Cuda;
use tightrope_train::{
    Config, Observer,
    config::{DeviceChoice, PrecisionChoice},
};

/// A chosen device.
#[derive(Clone, Debug)]
pub enum Chosen {
    /// The processor.
    Cpu(Cpu),
    /// An NVIDIA GPU.
    #[cfg(feature = "cuda")]
    Cuda(Cuda),
}

/// Evaluates an expression with the chosen device, whatever its type.
macro_rules! on_device {
    ($chosen:expr, |$device:ident| $body:expr) => {
        match $chosen {
            $crate::device::Chosen::Cpu($device) => $body,
            #[cfg(feature = "cuda")]
            $crate::device::Chosen::Cuda($device) => $body,
        }
    };
}
pub(crate) use on_device;

/// Returns the device of a configuration, and the configuration with the actual device and
/// precision.
///
/// `device = "auto"` takes a usable GPU if there is one, and reports a GPU that cannot be used.
/// `precision = "auto"` is bf16 on a GPU and f32 on the processor.
pub fn choose(
    config: &Config,
    threads: usize,
    observer: &dyn Observer,
) -> Result<(Chosen, Config), RunError> {
    let chosen = match gpu(config.device, observer)? {
        Some(gpu) => gpu,
        None => Chosen::Cpu(Cpu::new(threads)?),
    };
    let mut config = config.clone();
    (config.device, config.precision) = match (&chosen, config.precision) {
        (Chosen::Cpu(_), PrecisionChoice::Auto) => (DeviceChoice::Cpu, PrecisionChoice::F32),
        (Chosen::Cpu(_), precision) => (DeviceChoice::Cpu, precision),
        #[cfg(feature = "cuda")]
        (Chosen::Cuda(_), PrecisionChoice::Auto) => (DeviceChoice::Cuda, PrecisionChoice::Bf16),
        #[cfg(feature = "cuda")]
        (Chosen::Cuda(_), precision) => (DeviceChoice::Cuda, precision),
    };
    Ok((chosen, config))
}

/// The GPU that is wanted; none if none is, or if one would do and there is none.
#[cfg(feature = "cuda")]
fn gpu(wanted: DeviceChoice, observer: &dyn Observer) -> Result<Option<Chosen>, RunError> {
    Ok(match wanted {
        DeviceChoice::Cpu => None,
        DeviceChoice::Cuda => Some(Chosen::Cuda(Cuda::new(0)?)),
        DeviceChoice::Auto if !Cuda::has_driver() => None,
        DeviceChoice::Auto => match Cuda::new(0) {
            Ok(cuda) => Some(Chosen::Cuda(cuda)),
            Err(error) => {
                observer.notice(&format!("{error}; computing on the processor"));
                None
            }
        },
    })
}

/// There is none.
#[cfg(not(feature = "cuda"))]
fn gpu(wanted: DeviceChoice, _: &dyn Observer) -> Result<Option<Chosen>, RunError> {
    match wanted {
        DeviceChoice::Auto | DeviceChoice::Cpu => Ok(None),
        DeviceChoice::Cuda => Err(RunError::Device(tightrope_device::DeviceError::NoCuda {
            ordinal: 0,
            reason: "this program was built without the feature `cuda`".into(),
        })),
    }
}
