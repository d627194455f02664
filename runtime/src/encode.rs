//! Pixels to JPEG, for datasets that are packed smaller than they were found.

use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;

use mozjpeg_sys as ffi;

use crate::error::{Error, Result};
use crate::image::Image;

/// How much of the colour a JPEG keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ChromaSubsampling {
    /// Every pixel has its own colour.
    Full,
    /// Four pixels share one (4:2:0), as in most photographs.
    #[default]
    Quarter,
}

/// Largest side of a JPEG in pixels.
const MAX_SIDE: u32 = 65_500;

/// Encodes `image` as a baseline JPEG of `quality` 1 to 100: the bytes that Pillow writes by
/// `save(quality=.., subsampling=..)`.
///
/// # Errors
/// [`Error::EmptySize`] when the image has no pixel; [`Error::Encode`] when the library refuses.
///
/// ```
/// use ddas_runtime::{ChromaSubsampling, Image, encode_jpeg};
///
/// let grey = Image::from_rgb(16, 16, vec![128; 16 * 16 * 3])?;
/// let jpeg = encode_jpeg(&grey, 90, ChromaSubsampling::Quarter)?;
/// assert!(jpeg.starts_with(&[0xFF, 0xD8]) && jpeg.ends_with(&[0xFF, 0xD9]));
/// # Ok::<(), ddas_runtime::Error>(())
/// ```
pub fn encode_jpeg(image: &Image, quality: u8, subsampling: ChromaSubsampling) -> Result<Vec<u8>> {
    let (width, height) = (image.width(), image.height());
    if width == 0 || height == 0 {
        return Err(Error::EmptySize { width, height });
    }
    if width > MAX_SIDE || height > MAX_SIDE {
        return Err(Error::Encode {
            reason: format!("{width}x{height} pixels; a JPEG has at most {MAX_SIDE} on a side"),
        });
    }
    // The session is made and dropped inside; nothing of it is seen half-changed.
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        Session::new().encode(image, quality.clamp(1, 100), subsampling)
    }));
    outcome.unwrap_or_else(|payload| match payload.downcast::<Refused>() {
        Ok(_) => Err(Error::Encode {
            reason: "libjpeg refused the image".to_owned(),
        }),
        Err(payload) => resume_unwind(payload),
    })
}

/// What an unwinding from the library carries.
struct Refused;

struct Session {
    compress: ffi::jpeg_compress_struct,
    errors: ffi::jpeg_error_mgr,
    /// The library's buffer, from `malloc`.
    buffer: *mut u8,
    length: std::ffi::c_ulong,
}

impl Session {
    fn new() -> Session {
        // SAFETY: plain C structs, for which all zeroes is a valid value: null pointers, `None` functions, numbers, and
        // enums that have a member 0.
        unsafe { mem::zeroed() }
    }

    /// The session must not move from here on: the library holds pointers into it. `&mut self` keeps it in place until
    /// this call returns, and dropping it destroys the compressor.
    fn encode(
        &mut self,
        image: &Image,
        quality: u8,
        subsampling: ChromaSubsampling,
    ) -> Result<Vec<u8>> {
        // SAFETY: `errors`, `buffer` and `length` outlive every call below; struct size and library version are those the
        // library was built with. After creation, the settings are plain fields and calls on a live compressor.
        unsafe {
            ffi::jpeg_std_error(&mut self.errors);
            self.errors.error_exit = Some(error_exit);
            self.compress.common.err = &raw mut self.errors;
            ffi::jpeg_CreateCompress(
                &raw mut self.compress,
                ffi::JPEG_LIB_VERSION,
                size_of::<ffi::jpeg_compress_struct>(),
            );
            ffi::jpeg_mem_dest(
                &mut self.compress,
                &raw mut self.buffer,
                &raw mut self.length,
            );
            self.compress.image_width = image.width();
            self.compress.image_height = image.height();
            self.compress.input_components = Image::CHANNELS as i32;
            self.compress.in_color_space = ffi::J_COLOR_SPACE::JCS_RGB;
            // Before the defaults: libjpeg-turbo's, not MozJPEG's slow search for smaller files.
            ffi::jpeg_c_set_int_param(
                &mut self.compress,
                ffi::J_INT_PARAM::JINT_COMPRESS_PROFILE,
                ffi::JINT_COMPRESS_PROFILE_VALUE::JCP_FASTEST as i32,
            );
            ffi::jpeg_set_defaults(&mut self.compress);
            ffi::jpeg_set_quality(&mut self.compress, i32::from(quality), 1);
            let sampling = match subsampling {
                ChromaSubsampling::Full => 1,
                ChromaSubsampling::Quarter => 2,
            };
            // `jpeg_set_defaults` has set up three components, of which the first is the brightness.
            (*self.compress.comp_info).h_samp_factor = sampling;
            (*self.compress.comp_info).v_samp_factor = sampling;
            ffi::jpeg_start_compress(&mut self.compress, 1);
        }
        for y in 0..image.height() {
            let row = [image.row(y).as_ptr()];
            // SAFETY: one row of `image_width * input_components` bytes, which the library only reads.
            unsafe { ffi::jpeg_write_scanlines(&mut self.compress, row.as_ptr(), 1) };
        }
        // SAFETY: all rows have been written.
        unsafe { ffi::jpeg_finish_compress(&mut self.compress) };
        // SAFETY: `jpeg_finish_compress` has set both to what it wrote.
        let written = unsafe { std::slice::from_raw_parts(self.buffer, self.length as usize) };
        Ok(written.to_vec())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // SAFETY: frees the library's memory in whatever state it is; does nothing when the compressor was never created.
        // The buffer is null or from `malloc`, and nobody else's.
        unsafe {
            ffi::jpeg_destroy_compress(&mut self.compress);
            libc_free(mem::replace(&mut self.buffer, ptr::null_mut()).cast());
        }
    }
}

unsafe extern "C" {
    #[link_name = "free"]
    fn libc_free(pointer: *mut std::ffi::c_void);
}

/// Called by the library for errors it cannot go on after.
unsafe extern "C-unwind" fn error_exit(_: &mut ffi::jpeg_common_struct) {
    resume_unwind(Box::new(Refused));
}
