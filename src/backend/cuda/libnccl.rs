//! NVIDIA's NCCL, by the names that it has where it is installed: cudarc looks for `libnccl.so` alone, which only packages for
//! developers bring. What is here is called as in `cudarc::nccl::result`, and its types are cudarc's.

use cudarc::nccl::sys::{ncclComm_t, ncclDataType_t, ncclRedOp_t, ncclUniqueId};
use libloading::Library;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::fmt;
use std::sync::OnceLock;

/// In the order in which they are looked for.
const NAMES: [&str; 2] = ["libnccl.so.2", "libnccl.so"];

/// What is called of the library.
struct Nccl {
    get_unique_id: unsafe extern "C" fn(*mut ncclUniqueId) -> c_int,
    init_rank: unsafe extern "C" fn(*mut ncclComm_t, c_int, ncclUniqueId, c_int) -> c_int,
    abort: unsafe extern "C" fn(ncclComm_t) -> c_int,
    group_start: unsafe extern "C" fn() -> c_int,
    group_end: unsafe extern "C" fn() -> c_int,
    all_reduce: unsafe extern "C" fn(
        *const c_void,
        *mut c_void,
        usize,
        c_int,
        c_int,
        ncclComm_t,
        *mut c_void,
    ) -> c_int,
    error_string: unsafe extern "C" fn(c_int) -> *const c_char,
}

/// What NCCL refused with.
pub(super) struct NcclError(c_int);

impl fmt::Debug for NcclError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // SAFETY: the library gives a constant that ends in zero, whatever the number.
        let text = library().map(|nccl| unsafe { CStr::from_ptr((nccl.error_string)(self.0)) });
        write!(f, "{} ({})", text.map_or("it is gone".into(), CStr::to_string_lossy), self.0)
    }
}

/// The library, if it is there with all that is called.
fn library() -> Option<&'static Nccl> {
    static NCCL: OnceLock<Option<Nccl>> = OnceLock::new();
    NCCL.get_or_init(|| {
        // SAFETY: loads the library, which runs its constructors.
        let library = NAMES.iter().find_map(|name| unsafe { Library::new(*name) }.ok())?;
        // It stays as long as the process.
        let library: &'static Library = Box::leak(Box::new(library));
        // SAFETY: functions of nccl.h, of the types that it has had since version 2.0.
        unsafe {
            Some(Nccl {
                get_unique_id: *library.get(&b"ncclGetUniqueId"[..]).ok()?,
                init_rank: *library.get(&b"ncclCommInitRank"[..]).ok()?,
                abort: *library.get(&b"ncclCommAbort"[..]).ok()?,
                group_start: *library.get(&b"ncclGroupStart"[..]).ok()?,
                group_end: *library.get(&b"ncclGroupEnd"[..]).ok()?,
                all_reduce: *library.get(&b"ncclAllReduce"[..]).ok()?,
                error_string: *library.get(&b"ncclGetErrorString"[..]).ok()?,
            })
        }
    })
    .as_ref()
}

/// Whether it is there.
pub(super) fn is_present() -> bool {
    library().is_some()
}

fn loaded() -> &'static Nccl {
    library().expect("whoever calls has asked whether it is there")
}

fn done(result: c_int) -> Result<(), NcclError> {
    if result == 0 { Ok(()) } else { Err(NcclError(result)) }
}

/// A name for a group.
pub(super) fn get_uniqueid() -> Result<ncclUniqueId, NcclError> {
    let mut id = ncclUniqueId { internal: [0; 128] };
    // SAFETY: a name to write to.
    done(unsafe { (loaded().get_unique_id)(&mut id) })?;
    Ok(id)
}

/// Joins the group of that name.
///
/// # Safety
/// A place to write to; each rank calls it once, with a number of its own, on a GPU of its own.
pub(super) unsafe fn comm_init_rank(
    comm: *mut ncclComm_t,
    size: c_int,
    id: ncclUniqueId,
    rank: c_int,
) -> Result<(), NcclError> {
    // SAFETY: as whoever calls promises.
    done(unsafe { (loaded().init_rank)(comm, size, id, rank) })
}

/// Ends a group, and all that it does.
///
/// # Safety
/// A group that was joined, and is not used any more.
pub(super) unsafe fn comm_abort(comm: ncclComm_t) -> Result<(), NcclError> {
    // SAFETY: as whoever calls promises.
    done(unsafe { (loaded().abort)(comm) })
}

/// What follows is one operation.
pub(super) fn group_start() -> Result<(), NcclError> {
    // SAFETY: it only counts.
    done(unsafe { (loaded().group_start)() })
}

/// Launches what has been said since [`group_start`].
pub(super) fn group_end() -> Result<(), NcclError> {
    // SAFETY: what it launches was promised to be right.
    done(unsafe { (loaded().group_end)() })
}

/// Sums, or what else `op` says, over all ranks of a group.
///
/// # Safety
/// Device memory of that size, which is used next by what follows on the same stream.
pub(super) unsafe fn all_reduce(
    from: *const c_void,
    to: *mut c_void,
    count: usize,
    data_type: ncclDataType_t,
    op: ncclRedOp_t,
    comm: ncclComm_t,
    stream: *mut c_void,
) -> Result<(), NcclError> {
    // SAFETY: as whoever calls promises.
    done(unsafe { (loaded().all_reduce)(from, to, count, data_type as c_int, op as c_int, comm, stream) })
}
