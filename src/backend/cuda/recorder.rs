//! What a piece of work asks of the device, in order: written down as it is asked, or compared with what was.
//!
//! ```text
//! Measures   all is done; how many bytes are uploaded, and whether the host waits for anything
//! Writes     all is done, and written down: launches with their arguments, memory with its addresses, uploads with their places
//! Compares   nothing is done: each launch has to be the one that was written, memory is where it was, and uploads are collected
//! ```
//!
//! Work that has been compared from end to end is the written work on other uploads, so that a graph of the one does the other,
//! whatever the code between may depend on.

use super::memory::Pool;
use super::operation::{Addresses, Kernel, Operation};
use super::{Argument, Cuda, GemmProblem, Grid, Memory};
use crate::{Error, Result};

/// Uploads begin at multiples of it.
const ALIGNMENT: usize = 256;

/// All that was asked.
pub(super) struct Record {
    pub(super) operations: Vec<Operation>,
    /// Memory that was taken: where, and how much.
    taken: Vec<[u64; 2]>,
    /// Uploads: where each lies among all, and its bytes.
    uploads: Vec<[usize; 2]>,
    /// All of them.
    pub(super) block: Memory,
}

/// A record that is compared with, and how far that has come.
pub(super) struct Comparison {
    pub(super) record: Record,
    operations: usize,
    taken: usize,
    uploads: usize,
    /// What was uploaded.
    pub(super) bytes: Vec<u8>,
    same: bool,
}

impl Comparison {
    fn next(&mut self, is: impl FnOnce(&Operation) -> bool) -> bool {
        self.same &= self.record.operations.get(self.operations).is_some_and(is);
        self.operations += 1;
        self.same
    }

    pub(super) fn launches(&mut self, kernel: Kernel, grid: Grid, arguments: &[&dyn Argument]) -> bool {
        self.next(
            |operation| matches!(operation, Operation::Launch(launch) if launch.is(kernel, grid, arguments)),
        )
    }

    pub(super) fn clears(&mut self, of: [u64; 2]) -> bool {
        self.next(|operation| matches!(operation, Operation::Clear { address, bytes } if [*address, *bytes as u64] == of))
    }

    pub(super) fn multiplies(&mut self, of: &GemmProblem, at: &Addresses) -> bool {
        self.next(
            |operation| matches!(operation, Operation::Gemm(product, addresses) if product == of && addresses == at),
        )
    }

    fn memory(&mut self, bytes: usize) -> Option<Memory> {
        let taken = self.record.taken.get(self.taken).filter(|taken| taken[1] == bytes as u64);
        self.taken += 1;
        self.same &= taken.is_some();
        taken.map(|taken| Memory::lent(taken[0], bytes))
    }

    fn upload(&mut self, data: &[u8]) -> Option<Memory> {
        let place = self.record.uploads.get(self.uploads).filter(|upload| upload[1] == data.len());
        self.uploads += 1;
        self.same &= place.is_some();
        let [first, bytes] = *place?;
        self.bytes.resize(first, 0);
        self.bytes.extend_from_slice(data);
        Some(Memory::lent(self.record.block.address() + first as u64, bytes))
    }

    /// Whether nothing was different.
    pub(super) fn same(&self) -> bool {
        self.same
    }

    /// Whether all has been asked that was written.
    pub(super) fn complete(&self) -> bool {
        let Record { operations, taken, uploads, .. } = &self.record;
        let came = [self.operations, self.taken, self.uploads];
        self.same && came == [operations.len(), taken.len(), uploads.len()]
    }
}

/// See the module.
pub(super) enum Recorder {
    Measures { bytes: usize, waits: bool },
    Writes { record: Record, bytes: usize, fits: bool },
    Compares(Comparison),
}

impl Recorder {
    pub(super) fn measures() -> Recorder {
        Recorder::Measures { bytes: 0, waits: false }
    }

    /// With a block that all uploads fit in.
    pub(super) fn writes(block: Memory) -> Recorder {
        let record = Record { operations: Vec::new(), taken: Vec::new(), uploads: Vec::new(), block };
        Recorder::Writes { record, bytes: 0, fits: true }
    }

    pub(super) fn compares(record: Record) -> Recorder {
        let bytes = Vec::with_capacity(record.block.bytes());
        Recorder::Compares(Comparison { record, operations: 0, taken: 0, uploads: 0, bytes, same: true })
    }
}

/// What ends a comparison: nobody sees it.
fn different() -> Error {
    Error::device("a step is another than the one that was recorded", "this is a bug of limbeck")
}

impl Cuda {
    /// Whether work is compared, and this is what was written: then it is not to be done.
    ///
    /// # Errors
    /// It is not what was written.
    pub(super) fn compares(&self, is: impl FnOnce(&mut Comparison) -> bool) -> Result<bool> {
        match self.recorder().as_deref_mut() {
            Some(Recorder::Compares(comparison)) => {
                if is(comparison) {
                    Ok(true)
                } else {
                    Err(different())
                }
            }
            _ => Ok(false),
        }
    }

    /// Writes down what was asked, if somebody does.
    pub(super) fn write(&self, operation: impl FnOnce() -> Operation) {
        if let Some(Recorder::Writes { record, .. }) = self.recorder().as_deref_mut() {
            record.operations.push(operation());
        }
    }

    /// Something that no graph can hold: the host waits, or talks with other processes.
    ///
    /// # Errors
    /// Work is compared, for which the device has done nothing that could be waited for.
    pub(super) fn waits(&self) -> Result<()> {
        match self.recorder().as_deref_mut() {
            None => Ok(()),
            Some(Recorder::Measures { waits, .. }) => {
                *waits = true;
                Ok(())
            }
            Some(Recorder::Writes { fits, .. }) => {
                *fits = false;
                Ok(())
            }
            Some(Recorder::Compares(comparison)) => {
                comparison.same = false;
                Err(different())
            }
        }
    }

    /// Memory, where work has it: from the pool of graphs, if it may become one.
    pub(super) fn take(&self, bytes: usize) -> Result<Memory> {
        let mut recorder = self.recorder();
        if let Some(Recorder::Compares(comparison)) = recorder.as_deref_mut()
            && bytes > 0
        {
            return comparison.memory(bytes).ok_or_else(different);
        }
        let pool = if recorder.is_some() { &self.shared.reserved } else { &self.shared.pool };
        let mut fresh = Pool::take(pool, bytes);
        if fresh.is_err() {
            if let Some(Recorder::Writes { fits, .. }) = recorder.as_deref_mut() {
                *fits = false;
            }
            self.release_unused();
            fresh = Pool::take(pool, bytes);
        }
        let memory = fresh?;
        if let (Some(Recorder::Writes { record, .. }), true) = (recorder.as_deref_mut(), bytes > 0) {
            record.taken.push([memory.address(), bytes as u64]);
        }
        Ok(memory)
    }

    /// Uploads bytes, in the order of the stream; they have been read when this returns.
    pub(super) fn upload_bytes(&self, data: &[u8]) -> Result<Memory> {
        match self.recorder().as_deref_mut() {
            _ if data.is_empty() => return Ok(Memory::lent(0, 0)),
            Some(Recorder::Compares(comparison)) => return comparison.upload(data).ok_or_else(different),
            Some(Recorder::Measures { bytes, .. }) => *bytes += data.len().next_multiple_of(ALIGNMENT),
            Some(Recorder::Writes { record, bytes, fits }) => {
                let first = bytes.next_multiple_of(ALIGNMENT);
                if first + data.len() <= record.block.bytes() {
                    record.uploads.push([first, data.len()]);
                    *bytes = first + data.len();
                    let address = record.block.address() + first as u64;
                    self.shared.staging.send(address, data)?;
                    return Ok(Memory::lent(address, data.len()));
                }
                *fits = false;
            }
            None => {}
        }
        let memory = self.take(data.len())?;
        self.shared.staging.send(memory.address(), data)?;
        Ok(memory)
    }
}
