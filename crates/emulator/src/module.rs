//! A loaded module: kernels ready for launch, and variables in device memory.
use crate::decode::{Kernel, ModuleContext, decode_kernel};
use crate::execute::{LaunchConfig, LaunchReport, launch};
use crate::memory::{DeviceMemory, Order};
use crate::ptx::ast::{Variable, VariableSpace};
use crate::ptx::parse;
use crate::{EmulatorError, PtxError};
use std::collections::{BTreeMap, HashMap};

/// Largest total size of a module's variables in bytes, far more than any compiler lays out.
const MOST_BYTES: usize = 256 << 20;

/// A PTX module, parsed and decoded. Its `.global` and `.const` variables live in the memory that
/// it was loaded into.
pub struct Module {
    kernels: BTreeMap<String, Kernel>,
    variables: HashMap<String, (u64, u64)>,
}

impl Module {
    /// Reads PTX and places its variables in `memory`.
    pub fn load(source: &str, memory: &mut DeviceMemory) -> Result<Self, EmulatorError> {
        let module = parse(source)?;
        let mut context = ModuleContext {
            module: &module,
            variables: HashMap::new(),
        };
        let mut variables = HashMap::new();
        let mut total = 0usize;
        let lives_in_device =
            |v: &&Variable| matches!(v.space, VariableSpace::Global | VariableSpace::Const);
        for variable in module.variables.iter().filter(lives_in_device) {
            let Some(bytes) = variable.bytes.filter(|_| !variable.is_extern) else {
                let message = format!("`{}` is declared without a definition", variable.name);
                return Err(PtxError::new(variable.line, message).into());
            };
            total = total.saturating_add(bytes);
            if total > MOST_BYTES {
                let most = MOST_BYTES >> 20;
                let message = format!(
                    "the variables up to `{}` take over {most} MiB",
                    variable.name
                );
                return Err(PtxError::new(variable.line, message).into());
            }
            let is_constant = variable.space == VariableSpace::Const;
            let address = memory.insert(bytes as u64, &variable.name, is_constant)?;
            let mut initial = variable.initial.clone().unwrap_or_default();
            initial.resize(bytes, 0);
            memory.initialise(address, &initial);
            context.variables.insert(variable.name.clone(), address);
            variables.insert(variable.name.clone(), (address, bytes as u64));
        }
        let mut kernels = BTreeMap::new();
        for function in module
            .functions
            .iter()
            .filter(|f| f.is_kernel && f.body.is_some())
        {
            kernels.insert(function.name.clone(), decode_kernel(&context, function)?);
        }
        Ok(Self { kernels, variables })
    }

    /// Names of the kernels.
    pub fn kernel_names(&self) -> impl Iterator<Item = &str> {
        self.kernels.keys().map(String::as_str)
    }

    /// Address and length of a `.global` or `.const` variable.
    pub fn variable(&self, name: &str) -> Option<(u64, u64)> {
        self.variables.get(name).copied()
    }

    fn kernel(&self, name: &str) -> Result<&Kernel, EmulatorError> {
        self.kernels
            .get(name)
            .ok_or_else(|| EmulatorError::NoSuchKernel(name.into()))
    }

    /// Offset and length of each parameter of a kernel.
    pub fn parameters(&self, kernel: &str) -> Result<&[(usize, usize)], EmulatorError> {
        Ok(&self.kernel(kernel)?.parameters)
    }

    /// Size of a kernel's static shared memory in bytes, and its bound on threads per block.
    pub fn limits(&self, kernel: &str) -> Result<(u64, Option<u32>), EmulatorError> {
        let kernel = self.kernel(kernel)?;
        Ok((kernel.dynamic_shared, kernel.max_threads))
    }

    /// Launches a kernel and waits for it. Mistakes of the program are in the report; `Err` means
    /// that a driver would refuse the launch.
    pub fn launch(
        &self,
        kernel: &str,
        memory: &DeviceMemory,
        order: &Order,
        parameters: &[u8],
        config: &LaunchConfig,
    ) -> Result<LaunchReport, EmulatorError> {
        launch(self.kernel(kernel)?, memory, order, parameters, config)
    }
}
