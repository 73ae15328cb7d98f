//! Where a run trains: on the CPU or on a GPU. Files are quantized, and int8 computes, on the CPU always.

use super::recipe::tables::TrainPrecision;
use super::{Stage, StageContext};
use crate::backend::Cpu;
#[cfg(feature = "cuda")]
use crate::backend::Cuda;
#[cfg(feature = "cuda")]
use crate::backend::cuda::{Graphs, Options, Storage, probe};
use crate::ranks::ProcessGroup;
use crate::{Error, Result};
use limbeck_kernels::gemm::Precision;
use std::path::Path;

/// Where to train.
#[derive(Clone, Debug)]
pub enum TrainingDevice {
    /// On the CPU.
    Cpu,
    /// On a GPU.
    #[cfg(feature = "cuda")]
    Cuda(Cuda),
}

impl TrainingDevice {
    /// A GPU by its number, compiled kernels being kept in `cache`. Where there is only one, it is that one: Slurm can be told to show
    /// each process its own GPU alone, whatever the process's number.
    ///
    /// # Errors
    /// [`Error::Device`] if there is none that can be used.
    #[cfg(feature = "cuda")]
    pub fn cuda(ordinal: usize, cache: &Path) -> Result<TrainingDevice> {
        let ordinal = if probe::probe()?.len() == 1 { 0 } else { ordinal };
        let options = Options { ordinal, cache: Some(cache.to_owned()), ..Options::default() };
        Ok(TrainingDevice::Cuda(Cuda::open(&options)?))
    }

    /// A GPU: not in this build.
    ///
    /// # Errors
    /// [`Error::Device`].
    #[cfg(not(feature = "cuda"))]
    pub fn cuda(_ordinal: usize, _cache: &Path) -> Result<TrainingDevice> {
        Err(Error::Device {
            problem: "this build has no CUDA".into(),
            mend: "build with the feature cuda, or use --device cpu".into(),
        })
    }

    /// Meets the devices of the other ranks. Gives what is to be said of it, if anything is.
    ///
    /// # Errors
    /// [`Error::Ranks`].
    pub fn join(&self, ranks: &dyn ProcessGroup) -> Result<Option<&'static str>> {
        if !ranks.is_distributed() {
            return Ok(None);
        }
        match self {
            TrainingDevice::Cpu => Ok(None),
            #[cfg(feature = "cuda")]
            TrainingDevice::Cuda(cuda) => Ok((!cuda.join_ranks(ranks)?).then_some(
                "gradients are summed by way of the hosts: there is no NCCL (libnccl.so.2 on the library path) on every machine",
            )),
        }
    }
}

/// A device, ready to train in the precision that was asked for.
pub enum TrainingBackend {
    /// The CPU.
    Cpu(Cpu),
    /// A GPU.
    #[cfg(feature = "cuda")]
    Cuda(Cuda),
}

/// The device that a stage's training asks for.
///
/// # Errors
/// [`Error::Setting`] if it does not compute in that precision.
pub fn computing(context: &StageContext<'_>, stage: Stage) -> Result<TrainingBackend> {
    match context.device {
        TrainingDevice::Cpu => Ok(TrainingBackend::Cpu(cpu(context, stage)?)),
        #[cfg(feature = "cuda")]
        TrainingDevice::Cuda(cuda) => {
            let (_, train) = context.recipe.training(stage).expect("it trains");
            Ok(TrainingBackend::Cuda(cuda.with_storage(train.precision.on_gpu())))
        }
    }
}

/// The CPU with the precision that a stage's training asks for.
///
/// # Errors
/// [`Error::Setting`] if it does not compute in that precision.
pub fn cpu(context: &StageContext<'_>, stage: Stage) -> Result<Cpu> {
    let (table, train) = context.recipe.training(stage).expect("it trains");
    let Some(precision) = train.precision.on_cpu() else {
        let mend = "use \"bf16\" or \"f32\", or --device cuda";
        return Err(Error::setting(format!("{table}.precision"), "the CPU does not train in f16", mend));
    };
    Ok(Cpu::new(context.kernels).with_precision(precision))
}

/// Whether the run's device computes in the precisions of all trainings, told before the first of them.
///
/// # Errors
/// As [`computing`].
pub fn check_early(context: &StageContext<'_>) -> Result<()> {
    let mut trainings = Stage::ALL.into_iter().filter(|stage| context.recipe.training(*stage).is_some());
    trainings.try_for_each(|stage| computing(context, stage).map(drop))
}

impl TrainPrecision {
    /// What the CPU multiplies matrices in; `None` if it does not train in this precision.
    pub fn on_cpu(self) -> Option<Precision> {
        match self {
            TrainPrecision::Auto | TrainPrecision::F32 => Some(Precision::F32),
            TrainPrecision::Bf16 => Some(Precision::Bf16),
            TrainPrecision::F16 => None,
        }
    }

    /// What a GPU keeps activations in, and multiplies.
    #[cfg(feature = "cuda")]
    pub fn on_gpu(self) -> Storage {
        match self {
            TrainPrecision::F32 => Storage::F32,
            TrainPrecision::Auto | TrainPrecision::Bf16 => Storage::Bf16,
            TrainPrecision::F16 => Storage::F16,
        }
    }
}

impl StageContext<'_> {
    /// The kernels whose numbers a run's are: those of the CPU, or of a GPU's kind.
    pub fn kernels_name(&self) -> String {
        match self.device {
            TrainingDevice::Cpu => self.kernels.isa().name().to_owned(),
            #[cfg(feature = "cuda")]
            TrainingDevice::Cuda(cuda) => {
                let (major, minor) = cuda.capability();
                // A library that does not work makes no products.
                let beside = cuda.other_gemm_backend().ok().flatten();
                let beside = beside.map(|products| format!("-{products}")).unwrap_or_default();
                let filled = if cuda.graphs() == Graphs::Off { "-unfilled" } else { "" };
                format!("cuda-sm_{major}{minor}{filled}{beside}")
            }
        }
    }

    /// What a training of that precision computes in here.
    pub fn precision_name(&self, precision: TrainPrecision) -> String {
        match self.device {
            TrainingDevice::Cpu => {
                precision.on_cpu().map_or_else(|| format!("{precision:?}"), |found| format!("{found:?}"))
            }
            #[cfg(feature = "cuda")]
            TrainingDevice::Cuda(_) => format!("{:?}", precision.on_gpu()),
        }
    }

    /// Fails on all ranks unless each has the first one's recipe, and kernels whose numbers are the same bits: what each decides by
    /// itself (which heads to delete, say) has to be the same.
    ///
    /// # Errors
    /// [`Error::Ranks`].
    pub fn agree(&self) -> Result<()> {
        if !self.ranks.is_distributed() {
            return Ok(());
        }
        self.ranks.agree("recipe", &self.recipe_hash(Stage::Distill))?;
        let kernels = match self.device {
            TrainingDevice::Cpu => self.kernels_name(),
            // Sums are cut into as many slices as fill a GPU, and some things are computed by its host.
            #[cfg(feature = "cuda")]
            TrainingDevice::Cuda(cuda) => {
                let (name, host) = (self.kernels_name(), self.kernels.isa().name());
                format!("{name} with {} multiprocessors, beside {host}", cuda.multiprocessors())
            }
        };
        self.ranks.agree("device", &kernels)
    }

    /// How a run of the kernels of that name is gone on with.
    pub(super) fn mend_kernels(&self, kernels: &str) -> String {
        match kernels.starts_with("cuda") {
            true => {
                let products = match kernels.rsplit('-').next() {
                    Some("cublaslt") => "cuBLASLt",
                    Some("wgmma") => "LIMBECK_GEMM=wgmma",
                    _ => "LIMBECK_GEMM=own",
                };
                let filled = if kernels.contains("-unfilled") {
                    "LIMBECK_GRAPHS=0"
                } else {
                    "without LIMBECK_GRAPHS=0"
                };
                format!(
                    "go on with --device cuda on such a GPU with {products} and {filled}, or choose another --out"
                )
            }
            false => format!("go on with --device cpu and LIMBECK_ISA={kernels}, or choose another --out"),
        }
    }
}

/// Calls a function that is generic over devices with the one that a stage's training asks for.
macro_rules! on_device {
    ($context:expr, $stage:expr, |$device:ident| $call:expr) => {
        match $crate::stages::device::computing($context, $stage)? {
            $crate::stages::device::TrainingBackend::Cpu($device) => $call,
            #[cfg(feature = "cuda")]
            $crate::stages::device::TrainingBackend::Cuda($device) => $call,
        }
    };
}
pub(super) use on_device;
