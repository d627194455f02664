//! JPEG, through libjpeg-turbo (in MozJPEG's packaging).
//!
//! All of the library's failures leave it through one door: `error_exit` and
//! `emit_message` below unwind with a [`Failure`] through the C frames, which
//! are compiled with unwind tables (feature `unwinding` of `mozjpeg-sys`) and
//! own nothing that needs cleaning, as `longjmp` would in C; [`decode`] catches
//! it. The unwinding starts by `resume_unwind`, which prints nothing.

use std::any::Any;
use std::ffi::{CStr, c_char, c_int};
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use mozjpeg_sys as ffi;
use mozjpeg_sys::J_COLOR_SPACE;

use super::{Request, damaged};
use crate::error::Result;
use crate::image::Image;
use crate::resize::Rect;

#[cfg(not(panic = "unwind"))]
compile_error!("damaged JPEGs are reported by unwinding: build with panic = \"unwind\"");

/// Rows asked for at once; the library delivers at most 4 (one row group).
const ROWS: usize = 4;

/// The library's longest message with its terminating zero (`jerror.h`).
const MESSAGE_LENGTH: usize = 200;

/// Columns decoded beyond a region on each side. Smooth chroma upsampling looks
/// one chroma sample (two columns) to each side, and takes another way where it
/// sees the end of a row or rows of less than two samples.
const MARGIN: u32 = 4;

/// Decodes a JPEG of the requested size to RGB8, or the columns and rows about
/// `region`, and returns where `region` then lies in `image`.
///
/// Entropy decoding has to pass over everything before and beside the region,
/// but the inverse transform, upsampling and colour conversion do not, and what
/// lies below it is not looked at. The pixels are the same as of a whole
/// decode.
pub(super) fn decode(
    request: &Request<'_>,
    region: Rect,
    scratch: &mut Vec<u8>,
    image: &mut Image,
) -> Result<Rect> {
    // `image` and `scratch` hold plain bytes, whose contents are documented as
    // unspecified after an error: nothing can be seen half-changed.
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        Session::new(request.max_scans).decode(request, region, scratch, image)
    }));
    outcome.unwrap_or_else(|payload| match payload.downcast::<Failure>() {
        Ok(failure) => Err(damaged("JPEG", failure.message)),
        Err(payload) => resume_unwind(payload),
    })
}

/// What an unwinding from the library carries.
struct Failure {
    message: String,
}

/// One image on its way through the library.
///
/// A new decompressor per image, because the library keeps quantisation and
/// Huffman tables from one image to the next: a file without tables of its
/// own would be decoded with its predecessor's, and a sample's pixels would
/// depend on the order of reading.
struct Session {
    decompress: ffi::jpeg_decompress_struct,
    errors: ffi::jpeg_error_mgr,
    progress: ffi::jpeg_progress_mgr,
    max_scans: c_int,
}

impl Session {
    fn new(max_scans: u32) -> Self {
        // SAFETY: plain C structs, for which all zeroes is a valid value: null
        // pointers, `None` functions, numbers, and enums that have a member 0.
        let mut session: Self = unsafe { mem::zeroed() };
        session.max_scans = c_int::try_from(max_scans).unwrap_or(c_int::MAX);
        session
    }

    /// The session must not move from here on: the library holds pointers into
    /// it. `&mut self` keeps it in place until this call returns, and dropping
    /// it destroys the decompressor.
    fn decode(
        &mut self,
        request: &Request<'_>,
        region: Rect,
        scratch: &mut Vec<u8>,
        image: &mut Image,
    ) -> Result<Rect> {
        // SAFETY: `errors` and `progress` outlive every call below; the struct
        // size and the library version are those the library was built with.
        unsafe {
            ffi::jpeg_std_error(&mut self.errors);
            self.errors.error_exit = Some(error_exit);
            self.errors.emit_message = Some(emit_message);
            self.decompress.common.err = &raw mut self.errors;
            self.decompress.common.client_data = (&raw mut *self).cast();
            ffi::jpeg_CreateDecompress(
                &raw mut self.decompress,
                ffi::JPEG_LIB_VERSION,
                size_of::<ffi::jpeg_decompress_struct>(),
            );
        }
        self.progress.progress_monitor = Some(progress_monitor);
        self.decompress.common.progress = &raw mut self.progress;
        let Ok(length) = request.payload.len().try_into() else {
            return Err(damaged("JPEG", "the payload is too long"));
        };
        // SAFETY: the payload outlives the session and is only read.
        unsafe {
            ffi::jpeg_mem_src(&mut self.decompress, request.payload.as_ptr(), length);
            ffi::jpeg_read_header(&mut self.decompress, 1);
        }
        request.check_size(self.decompress.image_width, self.decompress.image_height)?;

        let cmyk = match self.decompress.jpeg_color_space {
            J_COLOR_SPACE::JCS_GRAYSCALE | J_COLOR_SPACE::JCS_YCbCr | J_COLOR_SPACE::JCS_RGB => {
                false
            }
            J_COLOR_SPACE::JCS_CMYK | J_COLOR_SPACE::JCS_YCCK => true,
            _ => {
                return Err(damaged(
                    "JPEG",
                    format!(
                        "{} colour components, expected 1 (grey), 3 (YCbCr, RGB) or 4 (CMYK)",
                        self.decompress.num_components
                    ),
                ));
            }
        };
        self.decompress.out_color_space = if cmyk {
            J_COLOR_SPACE::JCS_CMYK
        } else {
            J_COLOR_SPACE::JCS_RGB
        };
        // Pillow's settings, which are the library's defaults.
        self.decompress.dct_method = ffi::J_DCT_METHOD::JDCT_ISLOW;
        self.decompress.do_fancy_upsampling = 1;
        // SAFETY: the header has been read.
        unsafe { ffi::jpeg_start_decompress(&mut self.decompress) };
        request.check_size(self.decompress.output_width, self.decompress.output_height)?;
        let channels = if cmyk { 4 } else { 3 };
        if self.decompress.output_components != channels {
            return Err(damaged("JPEG", "unexpected number of output channels"));
        }

        let first_column = self.seek(request, region)?;
        image.reshape(self.decompress.output_width, region.height);
        if cmyk {
            self.read_cmyk(scratch, image)?;
        } else {
            self.read_rgb(image)?;
        }
        if region.y + region.height == request.height {
            // SAFETY: all rows have been read. Reads on to the end marker, so
            // that a file cut short within its last bytes is noticed too.
            unsafe { ffi::jpeg_finish_decompress(&mut self.decompress) };
        }
        Ok(Rect {
            x: region.x - first_column,
            y: 0,
            ..region
        })
    }

    /// Sets out for the rows of `region` and the columns about it; returns the
    /// first column, which `region` does not lie before.
    fn seek(&mut self, request: &Request<'_>, region: Rect) -> Result<u32> {
        let mut first = region.x.saturating_sub(MARGIN);
        let end = (region.x + region.width + MARGIN).min(request.width);
        if first > 0 || end < request.width {
            let mut width = end - first;
            // SAFETY: no row has been read yet. Moves `first` down to where a
            // block begins and widens `width` by as much.
            unsafe { ffi::jpeg_crop_scanline(&mut self.decompress, &mut first, &mut width) };
            if self.decompress.output_width != width || first + width != end {
                return Err(damaged("JPEG", "the decoder gave other columns"));
            }
        }
        if region.y > 0 {
            // SAFETY: decompression has been started.
            let skipped = unsafe { ffi::jpeg_skip_scanlines(&mut self.decompress, region.y) };
            if skipped != region.y {
                return Err(damaged("JPEG", "the decoder skipped other rows"));
            }
        }
        Ok(first)
    }

    /// Reads all rows into `image`.
    fn read_rgb(&mut self, image: &mut Image) -> Result<()> {
        let stride = image.stride();
        for rows in image.pixels_mut().chunks_mut(ROWS * stride) {
            self.read_rows(rows, stride)?;
        }
        Ok(())
    }

    /// Reads all rows as CMYK and converts them as Pillow does.
    fn read_cmyk(&mut self, scratch: &mut Vec<u8>, image: &mut Image) -> Result<()> {
        let stride = image.width() as usize * 4;
        scratch.resize(ROWS * stride, 0);
        let rgb_stride = image.stride();
        for rgb in image.pixels_mut().chunks_mut(ROWS * rgb_stride) {
            let cmyk = &mut scratch[..rgb.len() / rgb_stride * stride];
            self.read_rows(cmyk, stride)?;
            for (pixel, &inverted) in rgb
                .as_chunks_mut::<3>()
                .0
                .iter_mut()
                .zip(cmyk.as_chunks::<4>().0)
            {
                *pixel = rgb_from_inverted_cmyk(inverted);
            }
        }
        Ok(())
    }

    /// Fills `rows`, whole rows of `stride` bytes, at most [`ROWS`] of them.
    fn read_rows(&mut self, rows: &mut [u8], stride: usize) -> Result<()> {
        debug_assert_eq!(
            stride,
            self.decompress.output_width as usize * self.decompress.output_components as usize
        );
        let mut pointers = [std::ptr::null_mut::<u8>(); ROWS];
        let mut count = 0;
        for (pointer, row) in pointers.iter_mut().zip(rows.chunks_exact_mut(stride)) {
            *pointer = row.as_mut_ptr();
            count += 1;
        }
        let mut read = 0;
        while read < count {
            // SAFETY: `count - read` pointers to disjoint rows of `stride` =
            // output_width * output_components bytes, which is what the
            // library writes per row.
            let delivered = unsafe {
                ffi::jpeg_read_scanlines(
                    &mut self.decompress,
                    pointers[read..].as_mut_ptr(),
                    (count - read) as ffi::JDIMENSION,
                )
            } as usize;
            if delivered == 0 {
                return Err(damaged("JPEG", "the decoder delivered no more rows"));
            }
            read += delivered;
        }
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // SAFETY: frees the library's memory in whatever state the image is;
        // does nothing when the decompressor was never created.
        unsafe { ffi::jpeg_destroy_decompress(&mut self.decompress) };
    }
}

/// Pillow `Convert.c`, `cmyk2rgb`, on samples inverted as Adobe writes them
/// (`CMYK;I` in Pillow's JPEG plug-in, whatever the file's markers say).
fn rgb_from_inverted_cmyk(inverted: [u8; 4]) -> [u8; 3] {
    let [c, m, y, white] = inverted.map(i32::from);
    [c, m, y].map(|ink| {
        let product = (255 - ink) * white + 128;
        (white - (((product >> 8) + product) >> 8)).clamp(0, 255) as u8
    })
}

/// Called by the library for errors it cannot go on after.
unsafe extern "C-unwind" fn error_exit(common: &mut ffi::jpeg_common_struct) {
    fail(message(common));
}

/// Called by the library for warnings (level -1) and traces.
unsafe extern "C-unwind" fn emit_message(common: &mut ffi::jpeg_common_struct, level: c_int) {
    if level < 0 {
        fail(message(common));
    }
}

/// Called by the library from time to time, and once per row group while it
/// collects the scans of a progressive image.
unsafe extern "C-unwind" fn progress_monitor(common: &mut ffi::jpeg_common_struct) {
    let session = common.client_data.cast::<Session>();
    // SAFETY: `client_data` is the session whose decompressor is calling.
    let (scan, max_scans) = unsafe {
        (
            (*session).decompress.input_scan_number,
            (*session).max_scans,
        )
    };
    if scan > max_scans {
        fail(format!(
            "more than {max_scans} scans: refused, because each costs a pass over the image"
        ));
    }
}

fn fail(message: String) -> ! {
    resume_unwind(Box::new(Failure { message }) as Box<dyn Any + Send>)
}

/// The library's current message, in its own words.
fn message(common: &mut ffi::jpeg_common_struct) -> String {
    /// The true type of `format_message`: `mozjpeg-sys` declares a shared
    /// reference to 80 bytes, the library writes up to `MESSAGE_LENGTH`.
    type FormatMessage = unsafe extern "C-unwind" fn(*mut ffi::jpeg_common_struct, *mut c_char);

    let mut buffer = [0; MESSAGE_LENGTH];
    // SAFETY: `err` is the session's error manager, filled by jpeg_std_error;
    // the function has the C signature `void (j_common_ptr, char *)` and writes
    // a zero-terminated text of at most MESSAGE_LENGTH bytes.
    unsafe {
        if let Some(format_message) = (*common.err).format_message {
            let format_message: FormatMessage = mem::transmute(format_message);
            format_message(common, buffer.as_mut_ptr());
        }
    }
    buffer[MESSAGE_LENGTH - 1] = 0;
    // SAFETY: the last byte is zero.
    let text = unsafe { CStr::from_ptr(buffer.as_ptr()) };
    text.to_string_lossy().into_owned()
}
