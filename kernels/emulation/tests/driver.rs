//! What a device would refuse, or stop at, the emulation does too.

use libloading::{Library, Symbol};
use std::ffi::{CString, c_void};
use std::process::Command;

type Status = i32;

const INVALID_VALUE: Status = 1;

/// The stand-in driver; none where there was no C++ compiler.
struct Driver(Library);

impl Driver {
    fn open() -> Option<Driver> {
        let folder = limbeck_emulation::folder()?;
        // SAFETY: the library is ours, and runs nothing but constructors that fill a list.
        Some(Driver(unsafe { Library::new(folder.join("libcuda.so.1")) }.unwrap()))
    }

    fn get<F>(&self, name: &str) -> Symbol<'_, F> {
        // SAFETY: whoever calls names a function of the CUDA driver, and its type.
        unsafe { self.0.get(name.as_bytes()) }.unwrap()
    }

    fn kernel(&self, image: &str, name: &str) -> *mut c_void {
        type Load = unsafe extern "C" fn(*mut *mut c_void, *const c_void) -> Status;
        type Find = unsafe extern "C" fn(*mut *mut c_void, *mut c_void, *const i8) -> Status;
        let (image, name) = (CString::new(image).unwrap(), CString::new(name).unwrap());
        let (mut module, mut function) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: places to write to, and texts that end in zero.
        unsafe {
            assert_eq!(self.get::<Load>("cuModuleLoadData")(&mut module, image.as_ptr().cast()), 0);
            assert_eq!(
                self.get::<Find>("cuModuleGetFunction")(&mut function, module, name.as_ptr().cast()),
                0
            );
        }
        function
    }

    /// Memory that begins with these bytes.
    fn memory(&self, bytes: &[u8]) -> u64 {
        type Allocate = unsafe extern "C" fn(*mut u64, usize) -> Status;
        type Copy = unsafe extern "C" fn(u64, *const c_void, usize) -> Status;
        let mut address = 0;
        // SAFETY: a place to write to, and as many bytes as there are.
        unsafe {
            assert_eq!(self.get::<Allocate>("cuMemAlloc_v2")(&mut address, bytes.len()), 0);
            assert_eq!(self.get::<Copy>("cuMemcpyHtoD_v2")(address, bytes.as_ptr().cast(), bytes.len()), 0);
        }
        address
    }

    /// Launches one block, and waits for it.
    fn launch(
        &self,
        function: *mut c_void,
        threads: u32,
        shared: u32,
        arguments: &mut [*mut c_void],
    ) -> Status {
        type Launch = unsafe extern "C" fn(
            *mut c_void,
            u32,
            u32,
            u32,
            u32,
            u32,
            u32,
            u32,
            *mut c_void,
            *mut *mut c_void,
            *mut *mut c_void,
        ) -> Status;
        type Wait = unsafe extern "C" fn() -> Status;
        let null = std::ptr::null_mut();
        // SAFETY: a function that was loaded, and arguments of its types, as whoever calls sees to.
        unsafe {
            let launch = self.get::<Launch>("cuLaunchKernel");
            let status =
                launch(function, 1, 1, 1, threads, 1, 1, shared, null, arguments.as_mut_ptr(), null.cast());
            assert_eq!(self.get::<Wait>("cuCtxSynchronize")(), 0);
            status
        }
    }
}

/// Where a value is, as a launch is told.
fn at<T>(value: &mut T) -> *mut c_void {
    std::ptr::from_mut(value).cast()
}

#[test]
fn more_shared_memory_than_48_kib_has_to_be_asked_for() {
    type Ask = unsafe extern "C" fn(*mut c_void, i32, i32) -> Status;
    let Some(driver) = Driver::open() else { return };
    let function = driver.kernel("emulated sums float", "column_sums");
    let (mut x, mut partial) = (driver.memory(&[0; 64]), driver.memory(&[0; 64]));
    let (mut rows, mut cols, mut slice) = (4i32, 4i32, 4i32);
    let mut arguments = [at(&mut x), at(&mut rows), at(&mut cols), at(&mut slice), at(&mut partial)];
    let mut launch = |shared: u32| driver.launch(function, 256, shared, &mut arguments);
    assert_eq!([48 << 10, (48 << 10) + 1].map(&mut launch), [0, INVALID_VALUE]);
    // SAFETY: a function that was loaded; 8 is CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES.
    assert_eq!(unsafe { driver.get::<Ask>("cuFuncSetAttribute")(function, 8, 64 << 10) }, 0);
    assert_eq!([(48 << 10) + 1, 64 << 10, (64 << 10) + 1].map(&mut launch), [0, 0, INVALID_VALUE]);
}

/// Says that this process is the one that is to stop.
const CHILD: &str = "LIMBECK_EMULATION_CHILD";

#[test]
fn vectors_that_are_not_aligned_stop() {
    let Some(driver) = Driver::open() else { return };
    if std::env::var_os(CHILD).is_none() {
        let run = |skipped: &str| {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["--exact", "vectors_that_are_not_aligned_stop", "--nocapture"]);
            command.env(CHILD, skipped).output().unwrap()
        };
        assert!(run("0").status.success());
        let stopped = run("2");
        let said = String::from_utf8_lossy(&stopped.stderr);
        assert!(!stopped.status.success() && said.contains("not aligned, in attention_mean"), "{said}");
        return;
    }
    let skipped: u64 = std::env::var(CHILD).unwrap().parse().unwrap();
    let function = driver.kernel("emulated attention_rows Bf16", "attention_mean");
    // One text of two tokens, one head of eight columns, which a lane loads at once.
    let (mut q, mut k) = (driver.memory(&[0; 64]) + skipped, driver.memory(&[0; 32]));
    let offsets: Vec<u8> = [0i32, 2].iter().flat_map(|offset| offset.to_ne_bytes()).collect();
    let (mut offsets, mut means) = (driver.memory(&offsets), driver.memory(&[0; 8]));
    let (mut heads, mut size, mut scale, mut first) = (1i32, 8i32, 1.0f32, 0i32);
    let mut arguments = [
        at(&mut q),
        at(&mut k),
        at(&mut offsets),
        at(&mut heads),
        at(&mut size),
        at(&mut scale),
        at(&mut first),
        at(&mut means),
    ];
    assert_eq!(driver.launch(function, 128, 0, &mut arguments), 0);
}
