//! From the text of the kernels to machine code, by NVRTC, which needs no GPU.
//!
//! What has been compiled is kept on disk under the hash of all that it depends on: texts, options, NVRTC's version. What the driver
//! does not read of it is compiled again.

use super::Storage;
use crate::{Error, Result, files};
use cudarc::nvrtc::{result, sys};
use limbeck_kernels::cuda::{HEADERS, Source};
use std::ffi::{CStr, CString};
use std::path::{Path, PathBuf};

/// What a source is compiled for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// `Real`.
    pub storage: Storage,
    /// As NVRTC names it: `sm_80`, `sm_90a`.
    pub architecture: String,
}

impl Target {
    /// For a GPU of this compute capability, with the instructions that it alone has.
    pub fn of(storage: Storage, (major, minor): (u32, u32)) -> Target {
        let own = if (major, minor) == (9, 0) { "a" } else { "" };
        Target { storage, architecture: format!("sm_{major}{minor}{own}") }
    }

    /// What NVRTC is told.
    fn options(&self) -> Vec<String> {
        vec![
            format!("--gpu-architecture={}", self.architecture),
            "--std=c++17".into(),
            "--ptxas-options=-v".into(),
            format!("-DReal={}", self.storage.name()),
        ]
    }
}

/// Machine code, and what the compiler said of it: registers, spills.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// A cubin.
    pub image: Vec<u8>,
    /// The log.
    pub log: String,
}

/// The machine code of `source` that `folder` keeps, if it does.
///
/// # Errors
/// [`Error::Device`] if there is no NVRTC to ask for its version.
pub fn kept(source: &Source, target: &Target, folder: Option<&Path>) -> Result<Option<Vec<u8>>> {
    let Some(folder) = folder else { return Ok(None) };
    Ok(std::fs::read(path(source, target, folder)?).ok().filter(|image| !image.is_empty()))
}

/// Compiles `source`, and keeps the machine code in `folder`. One that cannot be written is no error: it is a cache.
///
/// # Errors
/// [`Error::Device`] if NVRTC refuses it.
pub fn keep(source: &Source, target: &Target, folder: Option<&Path>) -> Result<Vec<u8>> {
    let image = compile(source, target)?.image;
    if let Some(folder) = folder
        && std::fs::create_dir_all(folder).is_ok()
    {
        let _ = files::replace_bytes(&path(source, target, folder)?, &image);
    }
    Ok(image)
}

fn path(source: &Source, target: &Target, folder: &Path) -> Result<PathBuf> {
    Ok(folder.join(format!("{}-{}.cubin", source.name, &key(source, target)?[..32])))
}

/// The version of NVRTC, major and minor.
///
/// # Errors
/// The compiler's.
fn version() -> std::result::Result<(i32, i32), result::NvrtcError> {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: two numbers to write to.
    unsafe { sys::nvrtcVersion(&mut major, &mut minor) }.result()?;
    Ok((major, minor))
}

/// What is to be said of a driver that does not read machine code, where NVRTC is newer than the driver: CUDA `driver`, as 12040
/// for 12.4, reads what versions up to 12's last one make.
pub(super) fn too_new(driver: i32) -> Option<Error> {
    let (major, minor) = version().ok()?;
    let of_driver = driver / 1000;
    (major > of_driver).then(|| {
        let problem = format!(
            "the driver, which is for CUDA {of_driver}.{}, does not read what NVRTC {major}.{minor} compiles",
            driver % 1000 / 10
        );
        let mend = format!(
            "put an NVRTC {of_driver} first on LD_LIBRARY_PATH (pip install nvidia-cuda-nvrtc-cu{of_driver}), or install a newer driver"
        );
        Error::device(problem, mend)
    })
}

/// The hash of all that the machine code depends on.
fn key(source: &Source, target: &Target) -> Result<String> {
    let (major, minor) = version().map_err(|error| refused(source, error, ""))?;
    let mut all = format!("{major}.{minor}\n{}\n{}\n", target.options().join(" "), source.text);
    HEADERS.iter().for_each(|(name, text)| all += &format!("{name}\n{text}\n"));
    Ok(files::sha256(all.as_bytes()))
}

/// Compiles `source`.
///
/// # Errors
/// [`Error::Device`] with the compiler's words.
pub fn compile(source: &Source, target: &Target) -> Result<Compiled> {
    let c = |text: &str| CString::new(text).expect("sources hold no zero byte");
    let (text, name) = (c(source.text), c(source.name));
    let headers: Vec<[CString; 2]> = HEADERS.iter().map(|(name, text)| [c(name), c(text)]).collect();
    let names: Vec<_> = headers.iter().map(|[name, _]| name.as_ptr()).collect();
    let texts: Vec<_> = headers.iter().map(|[_, text]| text.as_ptr()).collect();
    let mut program = std::ptr::null_mut();
    // SAFETY: strings that end in zero and outlive the program; as many texts as names.
    unsafe {
        let count = names.len() as i32;
        sys::nvrtcCreateProgram(
            &mut program,
            text.as_ptr(),
            name.as_ptr(),
            count,
            texts.as_ptr(),
            names.as_ptr(),
        )
    }
    .result()
    .map_err(|error| refused(source, error, ""))?;
    // SAFETY: a program that was made above and is destroyed below.
    let compiled = unsafe { result::compile_program(program, &target.options()) };
    let log = log(program);
    let image = compiled.map_err(|error| refused(source, error, &log)).and_then(|()| {
        let mut bytes = 0;
        // SAFETY: a program that compiled, and a number to write to.
        unsafe { sys::nvrtcGetCUBINSize(program, &mut bytes) }
            .result()
            .map_err(|error| refused(source, error, &log))?;
        let mut image = vec![0u8; bytes];
        // SAFETY: the image has the size that was asked for.
        unsafe { sys::nvrtcGetCUBIN(program, image.as_mut_ptr().cast()) }
            .result()
            .map_err(|error| refused(source, error, &log))?;
        Ok(image)
    });
    // SAFETY: made above, and not used any more.
    let _ = unsafe { result::destroy_program(program) };
    Ok(Compiled { image: image?, log })
}

fn log(program: sys::nvrtcProgram) -> String {
    // SAFETY: a program that exists.
    let text = unsafe { result::get_program_log(program) };
    let Ok(text) = text else { return String::new() };
    // SAFETY: as many bytes as the vector has.
    let bytes = unsafe { std::slice::from_raw_parts(text.as_ptr().cast::<u8>(), text.len()) };
    CStr::from_bytes_until_nul(bytes).map(|text| text.to_string_lossy().into_owned()).unwrap_or_default()
}

fn refused(source: &Source, error: result::NvrtcError, log: &str) -> Error {
    let problem = format!("NVRTC does not compile {}.cu: {error}\n{log}", source.name);
    Error::device(problem.trim_end(), "report it with the versions of driver and NVRTC, or use --device cpu")
}
