//! Frozen weights of linear layers in NF4.

use crate::{
    ModelError,
    plan::{Allocate, PlannedBuffer, Purpose},
};
use tightrope_device::{Cpu, DType, Device, Tensor};
use tightrope_kernels::{
    Check,
    nf4::{self, Dequantize, Nf4 as _, Quantized, QuantizedScales},
};

/// A weight of a linear layer in NF4; it cannot have a gradient.
#[derive(Debug)]
pub(crate) struct Nf4<T> {
    pub name: String,
    pub shape: Vec<usize>,
    /// Type before the quantisation, which exports convert back to.
    pub stored: DType,
    codes: T,
    scales: Scales<T>,
}

#[derive(Debug)]
enum Scales<T> {
    Plain(T),
    Quantized { codes: T, absmax: T, offset: f32 },
}

/// Scales of a weight on the host.
pub(crate) enum HostScales {
    /// f32.
    Plain(Vec<f32>),
    /// Quantised scales.
    Quantized(QuantizedScales),
}

impl<T> Nf4<T> {
    /// Lays out a weight; with `double`, its scales are quantised themselves. Buffers have the
    /// names of bitsandbytes.
    pub(crate) fn allocate<A: Allocate<Buffer = T>>(
        allocate: &mut A,
        name: String,
        stored: DType,
        shape: &[usize],
        double: bool,
    ) -> Result<Self, ModelError> {
        let elements = shape.iter().fold(1usize, |a, &b| a.saturating_mul(b));
        let blocks = elements.div_ceil(nf4::BLOCK);
        let mut buffer = |part: &str, dtype, len| {
            allocate.allocate(PlannedBuffer {
                name: format!("{name}{part}"),
                purpose: Purpose::Weights,
                dtype,
                shape: vec![len],
                trained: None,
            })
        };
        let codes = buffer("", DType::U8, elements.div_ceil(2))?;
        let scales = if double {
            Scales::Quantized {
                codes: buffer(".absmax", DType::U8, blocks)?,
                absmax: buffer(
                    ".nested_absmax",
                    DType::F32,
                    blocks.div_ceil(nf4::SCALE_BLOCK),
                )?,
                offset: 0.0,
            }
        } else {
            Scales::Plain(buffer(".absmax", DType::F32, blocks)?)
        };
        Ok(Self {
            name,
            shape: shape.to_vec(),
            stored,
            codes,
            scales,
        })
    }
}

impl<D: Device> Nf4<Tensor<D>> {
    /// The weight as an operand of an operation.
    pub(crate) fn view(&self) -> nf4::Weight<'_, D> {
        nf4::Weight {
            codes: self.codes.view(),
            scales: match &self.scales {
                Scales::Plain(scales) => nf4::Scales::Plain(scales.view()),
                Scales::Quantized {
                    codes,
                    absmax,
                    offset,
                } => nf4::Scales::Quantized {
                    codes: codes.view(),
                    absmax: absmax.view(),
                    offset: *offset,
                },
            },
        }
    }

    /// Quantises `elements` on the host.
    pub(crate) fn quantize<X: Copy + Into<f32> + Sync>(
        &mut self,
        host: &Cpu,
        elements: &[X],
    ) -> Result<(), ModelError> {
        let Quantized { codes, scales } = nf4::quantize(host, elements);
        let scales = match self.scales {
            Scales::Plain(_) => HostScales::Plain(scales),
            Scales::Quantized { .. } => HostScales::Quantized(nf4::quantize_scales(&scales)),
        };
        self.write(&codes, &scales)
    }

    /// Writes quantised values, with scales of the kind that was laid out.
    pub(crate) fn write(&mut self, codes: &[u8], scales: &HostScales) -> Result<(), ModelError> {
        self.codes.write(codes)?;
        match (&mut self.scales, scales) {
            (Scales::Plain(tensor), HostScales::Plain(scales)) => Ok(tensor.write(scales)?),
            (
                Scales::Quantized {
                    codes,
                    absmax,
                    offset,
                },
                HostScales::Quantized(scales),
            ) => {
                codes.write(&scales.codes)?;
                absmax.write(&scales.absmax)?;
                *offset = scales.offset;
                Ok(())
            }
            _ => Err(ModelError::Unsupported(
                "the kind of scales differs from the layout",
            )),
        }
    }

    /// Decoded values.
    pub(crate) fn to_f32_vec(&self, host: &Cpu) -> Result<Vec<f32>, ModelError> {
        let bytes =
            |tensor: &Tensor<D>| Tensor::from_slice(host, tensor.shape(), &tensor.to_vec::<u8>()?);
        let floats =
            |tensor: &Tensor<D>| Tensor::from_slice(host, tensor.shape(), &tensor.to_vec::<f32>()?);
        let (codes, scales) = (
            bytes(&self.codes)?,
            match &self.scales {
                Scales::Plain(scales) => Scales::Plain(floats(scales)?),
                Scales::Quantized {
                    codes,
                    absmax,
                    offset,
                } => Scales::Quantized {
                    codes: bytes(codes)?,
                    absmax: floats(absmax)?,
                    offset: *offset,
                },
            },
        );
        let on_host = Nf4 {
            name: String::new(),
            shape: Vec::new(),
            stored: self.stored,
            codes,
            scales,
        };
        let mut y = Tensor::zeros(host, DType::F32, &self.shape)?;
        let elements = y.len();
        let dequantize = Dequantize {
            weight: on_host.view(),
            y: y.view_mut(),
            elements,
        };
        host.nf4_dequantize(dequantize.checked()?)?;
        Ok(y.to_vec()?)
    }
}

/// A CPU for quantisation on the host: with the threads of the device, if that is a CPU.
pub(crate) fn host<D: Device>(device: &D) -> Result<Cpu, ModelError> {
    let device: &dyn std::any::Any = device;
    match device.downcast_ref::<Cpu>() {
        Some(cpu) => Ok(cpu.clone()),
        None => Ok(Cpu::new(0)?),
    }
}
