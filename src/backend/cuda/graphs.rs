//! Training steps as CUDA graphs: a step whose launches are those of an earlier one costs one upload and one launch.
//!
//! ```text
//! first of its kind    done as always, and measured        (Recorder::Measures)
//! second               done as always, and written down    (Recorder::Writes); a graph is captured from what was written
//! later                compared with what was written      (Recorder::Compares); its uploads go up together, the graph is launched
//! ```
//!
//! A kind is what grids depend on: texts, tokens, and how many texts are how long. [`Device::fills`](crate::backend::Device::fills)
//! has batches filled up so that there are few kinds. What steps differ in lies in memory: ids, labels, the key of the dropout, the
//! learning rate. Where a step is not what was written (parameters have been replaced, heads have been deleted) all graphs are
//! dropped, and it is done as always.
//!
//! While a stream captures, nothing may be asked that is not put into the graph, as allocations and waiting are (CUDA Driver API,
//! cuStreamBeginCapture and cuThreadExchangeStreamCaptureMode). So only what was written is asked then, after it has been done
//! once: kernels are loaded, memory is there, and cuBLASLt has been asked for its algorithms (the heuristic of CUDA 13.3 fails
//! while a stream captures) and has a workspace of ours. Memory of graphs comes from a pool that nobody else takes from; graphs
//! share it, for they follow each other on one stream, and nothing of a step is needed in the next.

use super::lengths::Counts;
use super::memory::Pool;
use super::recorder::{Record, Recorder};
use super::{Cuda, GemmBackend, Storage, failed};
use crate::backend::Repeats;
use crate::{Batch, Error, Result};
use cudarc::driver::{result, sys};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

/// The most kinds that are known. Batches of 32 texts of news come in some 150 kinds; a kind that came up once gives way to a new
/// one, the oldest first.
const MAX_KINDS: usize = 128;
/// Graphs are given up when so many steps were not what was written, and not many more were.
const PATIENCE: u64 = 16;

/// Whether training steps are filled up, and whether they are graphs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Graphs {
    /// Neither.
    Off,
    /// Batches are filled up, and each step is launched by itself: the numbers are those of `On`.
    Filled,
    /// Both.
    On,
}

impl Graphs {
    /// All of them.
    pub const ALL: [Graphs; 3] = [Graphs::Off, Graphs::Filled, Graphs::On];

    /// The environment variable that chooses.
    pub const VARIABLE: &str = "LIMBECK_GRAPHS";

    /// What [`Graphs::VARIABLE`] calls it.
    pub fn name(self) -> &'static str {
        match self {
            Graphs::Off => "0",
            Graphs::Filled => "fill",
            Graphs::On => "1",
        }
    }

    /// What [`Graphs::VARIABLE`] asks for; `On` if it is unset or empty.
    ///
    /// # Errors
    /// [`Error::Variable`]: it names nothing that there is.
    pub fn asked() -> Result<Graphs> {
        std::env::var_os(Graphs::VARIABLE)
            .map_or(Ok(Graphs::On), |name| Graphs::named(&name.to_string_lossy()))
    }

    fn named(name: &str) -> Result<Graphs> {
        if name.is_empty() {
            return Ok(Graphs::On);
        }
        Graphs::ALL.into_iter().find(|graphs| graphs.name() == name).ok_or_else(|| {
            let known = Graphs::ALL.map(Graphs::name).join(" or ");
            let problem = format!("{name:?} does not say whether training steps are CUDA graphs");
            Error::variable(Graphs::VARIABLE, problem, format!("set it to {known}, or unset it"))
        })
    }
}

/// What launches depend on.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Kind {
    storage: Storage,
    products: Option<GemmBackend>,
    tokens: usize,
    counts: Counts,
}

/// What is known of a kind.
enum Known {
    /// Came up once, at that step.
    Measured {
        /// Of its uploads.
        bytes: usize,
        step: u64,
    },
    Captured(Box<(Record, Executable)>),
    Unfit,
}

struct Executable(sys::CUgraphExec);

// SAFETY: an executable graph may be used by any thread, one at a time, which the lock around it sees to.
unsafe impl Send for Executable {}

impl Drop for Executable {
    fn drop(&mut self) {
        // SAFETY: made by `Cuda::capture`, and launched no more; one that still runs is released when it has run (CUDA Driver API, cuGraphExecDestroy). That the driver may
        // refuse, at the end of the process, harms nobody.
        let _ = unsafe { result::graph::exec_destroy(self.0) };
    }
}

/// Graphs of a device.
#[derive(Default)]
pub(super) struct GraphCache {
    known: HashMap<Kind, Known>,
    repeats: Repeats,
}

impl GraphCache {
    /// Whether there is room for another kind, if need be in the place of the one that has waited longest to come up again.
    fn make_room(&mut self) -> bool {
        if self.known.len() < MAX_KINDS {
            return true;
        }
        let waiting = self.known.iter().filter_map(|(kind, known)| match known {
            Known::Measured { step, .. } => Some((*step, kind)),
            Known::Captured(_) | Known::Unfit => None,
        });
        let oldest = waiting.min_by_key(|(step, _)| *step).map(|(_, kind)| *kind);
        oldest.is_some_and(|kind| self.known.remove(&kind).is_some())
    }
}

impl Cuda {
    /// The same GPU, its training steps as asked for.
    pub fn with_graphs(&self, graphs: Graphs) -> Cuda {
        Cuda { graphs, ..self.clone() }
    }

    /// Whether training steps are filled up, and graphs.
    pub fn graphs(&self) -> Graphs {
        self.graphs
    }

    /// What has come of training steps until now.
    pub fn graph_repeats(&self) -> Repeats {
        self.graph_cache().repeats
    }

    fn graph_cache(&self) -> MutexGuard<'_, GraphCache> {
        self.shared.graph_cache.lock().expect("nothing panics while it holds the list")
    }

    /// See [`Device::repeated`](crate::backend::Device::repeated).
    pub(super) fn repeat<T>(&self, batch: &Batch, mut work: impl FnMut(&Cuda) -> Result<T>) -> Result<T> {
        if self.graphs != Graphs::On || self.recorder.is_some() {
            return work(self);
        }
        let (_, counts) = Counts::of(batch);
        let kind = Kind { storage: self.storage, products: self.products, tokens: batch.tokens(), counts };
        let mut cache = self.graph_cache();
        let Repeats { replayed, differed, .. } = cache.repeats;
        let full = !cache.known.contains_key(&kind) && !cache.make_room();
        let known = if full { Some(Known::Unfit) } else { cache.known.remove(&kind) };
        drop(cache);
        if differed > PATIENCE && replayed < PATIENCE * differed {
            return self.ordinary(&mut work);
        }
        match known {
            None => self.measure(kind, &mut work),
            Some(Known::Measured { bytes, .. }) => self.record(kind, bytes, &mut work),
            Some(Known::Captured(captured)) => self.replay(kind, *captured, work),
            Some(Known::Unfit) => {
                if !full {
                    self.graph_cache().known.insert(kind, Known::Unfit);
                }
                self.ordinary(&mut work)
            }
        }
    }

    fn ordinary<T>(&self, work: &mut impl FnMut(&Cuda) -> Result<T>) -> Result<T> {
        self.graph_cache().repeats.ordinary += 1;
        work(self)
    }

    fn measure<T>(&self, kind: Kind, work: &mut impl FnMut(&Cuda) -> Result<T>) -> Result<T> {
        let (done, recorder) = self.recorded(Recorder::measures(), work);
        let mut cache = self.graph_cache();
        cache.repeats.ordinary += 1;
        if let (Ok(_), Recorder::Measures { bytes, waits }) = (&done, recorder) {
            cache.repeats.unfit += u64::from(waits);
            let step = cache.repeats.ordinary + cache.repeats.replayed;
            cache.known.insert(kind, if waits { Known::Unfit } else { Known::Measured { bytes, step } });
        }
        done
    }

    fn record<T>(&self, kind: Kind, bytes: usize, work: &mut impl FnMut(&Cuda) -> Result<T>) -> Result<T> {
        let Ok(block) = Pool::take(&self.shared.reserved, bytes) else {
            self.release_unused();
            return self.ordinary(work);
        };
        let (done, recorder) = self.recorded(Recorder::writes(block), work);
        let captured = match (&done, recorder) {
            (Ok(_), Recorder::Writes { record, fits: true, .. }) => {
                self.capture(&record).ok().map(|executable| Box::new((record, executable)))
            }
            _ => None,
        };
        let mut cache = self.graph_cache();
        let Repeats { captured: graphs, ordinary, unfit, .. } = &mut cache.repeats;
        *ordinary += 1;
        *graphs += u64::from(captured.is_some());
        *unfit += u64::from(captured.is_none());
        cache.known.insert(kind, captured.map_or(Known::Unfit, Known::Captured));
        done
    }

    fn replay<T>(
        &self,
        kind: Kind,
        (record, executable): (Record, Executable),
        mut work: impl FnMut(&Cuda) -> Result<T>,
    ) -> Result<T> {
        let (done, recorder) = self.recorded(Recorder::compares(record), &mut work);
        let Recorder::Compares(comparison) = recorder else { unreachable!("it compares") };
        if comparison.same() && done.is_err() {
            return done;
        }
        if !comparison.complete() {
            drop((done, comparison, executable));
            self.graph_cache().repeats.differed += 1;
            self.release_unused();
            return self.measure(kind, &mut work);
        }
        self.shared.staging.send(comparison.record.block.address(), &comparison.bytes)?;
        self.bind()?;
        // SAFETY: a graph of this stream's work, whose memory the record and the pool of graphs keep.
        unsafe { result::graph::launch(executable.0, self.shared.stream.cu_stream()) }
            .map_err(failed("launch a graph"))?;
        let mut cache = self.graph_cache();
        cache.repeats.replayed += 1;
        cache.known.insert(kind, Known::Captured(Box::new((comparison.record, executable))));
        done
    }

    /// Does work with a recorder, and gives it back.
    fn recorded<T>(
        &self,
        recorder: Recorder,
        work: &mut impl FnMut(&Cuda) -> Result<T>,
    ) -> (Result<T>, Recorder) {
        let recorder = Arc::new(Mutex::new(recorder));
        let cuda = Cuda { recorder: Some(Arc::clone(&recorder)), scope: Arc::default(), ..self.clone() };
        let done = work(&cuda);
        drop(cuda);
        let mut recorder = recorder.lock().expect("nothing panics while it holds the recorder");
        (done, std::mem::replace(&mut *recorder, Recorder::measures()))
    }

    /// A graph of what was written.
    fn capture(&self, record: &Record) -> Result<Executable> {
        self.bind()?;
        let stream = self.shared.stream.cu_stream();
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream is ours.
        unsafe { result::stream::begin_capture(stream, mode) }.map_err(failed("begin a graph"))?;
        let issued = record.operations.iter().try_for_each(|operation| operation.issue(self));
        // SAFETY: as above. A capture ends where it began, whatever has come of it.
        let graph = unsafe { result::stream::end_capture(stream) };
        issued?;
        let graph = graph.map_err(failed("capture a graph"))?;
        // SAFETY: the graph was made above, and is not needed any more once it can be launched.
        let executable = unsafe {
            let executable = result::graph::instantiate(graph, sys::CUgraphInstantiate_flags(0));
            let _ = result::graph::destroy(graph);
            executable
        };
        executable.map(Executable).map_err(failed("make a graph"))
    }

    /// Gives back what only graphs and nobody use.
    pub(super) fn release_unused(&self) {
        self.graph_cache().known.clear();
        self.shared.reserved.release();
        self.shared.pool.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_variable() {
        for graphs in Graphs::ALL {
            assert_eq!(Graphs::named(graphs.name()).unwrap(), graphs);
        }
        assert_eq!(Graphs::named("").unwrap(), Graphs::On);
        let error = Graphs::named("on").unwrap_err().to_string();
        assert!(error.contains("0 or fill or 1") && error.contains("LIMBECK_GRAPHS"), "{error}");
    }
}
