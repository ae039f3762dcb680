//! Handles and descriptors that the caller creates, fills and destroys.
use crate::pointers::{attribute, put};
use crate::status::{Code, INVALID_VALUE, NOT_SUPPORTED, Status, api, refuse};
use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::sync::{LazyLock, Mutex, MutexGuard};

/// A handle of one of our objects.
pub(crate) type Handle = *mut c_void;

const COMPUTE_32F: c_int = 68;
const HIGHEST_ALIGNMENT: u32 = 256;

/// Element types by their numbers in `cudaDataType_t`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Type {
    F32 = 0,
    F16 = 2,
    BF16 = 14,
}

impl Type {
    pub(crate) fn bytes(self) -> u64 {
        if self == Type::F32 { 4 } else { 2 }
    }

    fn of(number: c_int) -> Result<Self, Code> {
        [Type::F32, Type::F16, Type::BF16]
            .into_iter()
            .find(|known| *known as c_int == number)
            .map_or_else(
                || refuse(NOT_SUPPORTED, format_args!("element type {number}")),
                Ok,
            )
    }
}

/// A column-major matrix: `stride` elements from one column to the next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Layout {
    pub of: Type,
    pub rows: u64,
    pub columns: u64,
    pub stride: u64,
}

/// The computation of a product.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Operation {
    pub is_transposed: [bool; 2],
    pub has_bias: bool,
    pub bias: u64,
}

/// Resources and alignments that an algorithm may use and rely on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Preference {
    pub workspace: u64,
    /// Bits of `cublasLtReductionScheme_t`.
    pub reductions: u32,
    /// Alignments of A, B, C and D in bytes.
    pub alignment: [u32; 4],
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Object {
    Library,
    Layout(Layout),
    Operation(Operation),
    Preference(Preference),
}

#[derive(Default)]
struct Objects {
    live: HashMap<u64, Object>,
    created: u64,
}

static OBJECTS: LazyLock<Mutex<Objects>> = LazyLock::new(Mutex::default);

fn objects() -> MutexGuard<'static, Objects> {
    OBJECTS
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn create(out: *mut Handle, object: Object) -> Status {
    let mut objects = objects();
    objects.created += 1;
    let handle = 0x20_0000 + objects.created * 16;
    objects.live.insert(handle, object);
    put(out, handle as Handle)
}

fn destroy(handle: Handle, is_it: impl Fn(&Object) -> bool) -> Status {
    let mut objects = objects();
    match objects.live.get(&(handle as u64)) {
        Some(object) if is_it(object) => {
            objects.live.remove(&(handle as u64));
            Ok(())
        }
        other => refuse(
            INVALID_VALUE,
            format_args!("{handle:?} to be destroyed is {other:?}"),
        ),
    }
}

/// The object of this handle, if `take` accepts its kind.
fn with<T>(handle: Handle, take: impl FnOnce(&mut Object) -> Option<T>) -> Result<T, Code> {
    let mut objects = objects();
    let object = objects.live.get_mut(&(handle as u64));
    match object.and_then(take) {
        Some(found) => Ok(found),
        None => refuse(
            INVALID_VALUE,
            format_args!("{handle:?} is no live object of the kind that belongs here"),
        ),
    }
}

pub(crate) fn library(handle: Handle) -> Status {
    with(handle, |object| {
        matches!(object, Object::Library).then_some(())
    })
}

pub(crate) fn layout(handle: Handle) -> Result<Layout, Code> {
    with(handle, |object| match object {
        Object::Layout(layout) => Some(*layout),
        _ => None,
    })
}

pub(crate) fn operation(handle: Handle) -> Result<Operation, Code> {
    with(handle, |object| match object {
        Object::Operation(operation) => Some(*operation),
        _ => None,
    })
}

pub(crate) fn preference(handle: Handle) -> Result<Preference, Code> {
    with(handle, |object| match object {
        Object::Preference(preference) => Some(*preference),
        _ => None,
    })
}

fn flag(number: u32, what: &str) -> Result<bool, Code> {
    match number {
        0 => Ok(false),
        1 => Ok(true),
        _ => refuse(NOT_SUPPORTED, format_args!("{what} {number}")),
    }
}

fn set_operation(
    object: &mut Operation,
    number: c_int,
    from: *const c_void,
    bytes: usize,
) -> Status {
    let word = || attribute(from, bytes).map(u32::from_ne_bytes);
    match number {
        3 => object.is_transposed[0] = flag(word()?, "operation on A")?,
        4 => object.is_transposed[1] = flag(word()?, "operation on B")?,
        7 => {
            object.has_bias = match word()? {
                1 => false,
                4 => true,
                other => return refuse(NOT_SUPPORTED, format_args!("epilogue {other}")),
            }
        }
        8 => object.bias = u64::from_ne_bytes(attribute(from, bytes)?),
        _ => {
            return refuse(
                NOT_SUPPORTED,
                format_args!("attribute {number} of a description"),
            );
        }
    }
    Ok(())
}

fn set_preference(
    object: &mut Preference,
    number: c_int,
    from: *const c_void,
    bytes: usize,
) -> Status {
    let word = || attribute(from, bytes).map(u32::from_ne_bytes);
    match number {
        1 => object.workspace = u64::from_ne_bytes(attribute(from, bytes)?),
        3 => object.reductions = word()?,
        5..=8 => {
            let alignment = word()?;
            if !alignment.is_power_of_two() {
                return refuse(INVALID_VALUE, format_args!("alignment {alignment}"));
            }
            object.alignment[(number - 5) as usize] = alignment;
        }
        _ => {
            return refuse(
                NOT_SUPPORTED,
                format_args!("attribute {number} of a preference"),
            );
        }
    }
    Ok(())
}

api! {
    fn cublasLtCreate(out: *mut Handle) {
        create(out, Object::Library)
    }
    fn cublasLtDestroy(handle: Handle) {
        destroy(handle, |object| matches!(object, Object::Library))
    }
    fn cublasLtMatrixLayoutCreate(
        out: *mut Handle, of: c_int, rows: u64, columns: u64, stride: i64,
    ) {
        let of = Type::of(of)?;
        match u64::try_from(stride) {
            Ok(stride) if rows > 0 && columns > 0 && stride >= rows => {
                create(out, Object::Layout(Layout { of, rows, columns, stride }))
            }
            _ => refuse(INVALID_VALUE, format_args!("a layout of {rows} rows, {columns} columns, stride {stride}")),
        }
    }
    fn cublasLtMatrixLayoutDestroy(handle: Handle) {
        destroy(handle, |object| matches!(object, Object::Layout(_)))
    }
    fn cublasLtMatmulDescCreate(out: *mut Handle, compute: c_int, scale: c_int) {
        if compute != COMPUTE_32F || Type::of(scale)? != Type::F32 {
            return refuse(NOT_SUPPORTED, format_args!("compute type {compute}, scale type {scale}"));
        }
        create(out, Object::Operation(Operation { is_transposed: [false; 2], has_bias: false, bias: 0 }))
    }
    fn cublasLtMatmulDescSetAttribute(
        handle: Handle, number: c_int, from: *const c_void, bytes: usize,
    ) {
        with(handle, |object| match object {
            Object::Operation(operation) => Some(set_operation(operation, number, from, bytes)),
            _ => None,
        })?
    }
    fn cublasLtMatmulDescDestroy(handle: Handle) {
        destroy(handle, |object| matches!(object, Object::Operation(_)))
    }
    fn cublasLtMatmulPreferenceCreate(out: *mut Handle) {
        create(out, Object::Preference(Preference {
            workspace: 0,
            reductions: 7,
            alignment: [HIGHEST_ALIGNMENT; 4],
        }))
    }
    fn cublasLtMatmulPreferenceSetAttribute(
        handle: Handle, number: c_int, from: *const c_void, bytes: usize,
    ) {
        with(handle, |object| match object {
            Object::Preference(preference) => Some(set_preference(preference, number, from, bytes)),
            _ => None,
        })?
    }
    fn cublasLtMatmulPreferenceDestroy(handle: Handle) {
        destroy(handle, |object| matches!(object, Object::Preference(_)))
    }
}
