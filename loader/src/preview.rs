//! A contact sheet: samples as they are stored beside what the pipeline makes of them.

use std::io::Write;
use std::path::Path;

use ddas_formats::{Dataset, Policy};
use ddas_runtime::{
    Decoder, Dtype, Image, Layout, OutputFormat, PassOrder, Pipeline, PipelineScratch, Rect,
    ResizeFilter, Resizer,
};
use font8x8::UnicodeFonts;

use crate::error::{Error, Result};
use crate::order::EpochOrder;
use crate::recipe_file::read_recipe;

/// What a contact sheet shows.
#[derive(Clone, Debug)]
pub struct PreviewOptions {
    /// Name of the recipe, or a file that ends in `.toml`.
    pub recipe: String,
    /// The policy, if any.
    pub policy: Option<Policy>,
    /// Epochs of the training run over which the policy is spread.
    pub epochs: u32,
    /// The epochs to show, one column each.
    pub shown: Vec<u32>,
    /// Number of samples, one row each.
    pub rows: u32,
    /// Seed of the choice of samples and of the augmentation.
    pub seed: u64,
}

/// An RGB picture.
#[derive(Clone, Debug)]
pub struct Sheet {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

const MARGIN: usize = 8;
const GLYPH: usize = 8;
const LINE: usize = GLYPH + 3;
/// Room for 24 characters under each image.
const LEAST_CELL: usize = 24 * GLYPH;
const PAPER: [u8; 3] = [250, 250, 250];
const INK: [u8; 3] = [30, 30, 30];

impl Sheet {
    /// Draws the sheet: a row a sample, the stored image first, then the image of each shown epoch exactly as `serve`
    /// would hand it out (before normalisation), with the policy's operations under it.
    ///
    /// # Errors
    /// [`Error::Sample`] for a bad sample; errors of the recipe or policy.
    pub fn draw(dataset: &Dataset, options: &PreviewOptions) -> Result<Sheet> {
        let recipe = read_recipe(&options.recipe)?;
        let output = OutputFormat {
            dtype: Dtype::U8,
            layout: Layout::Nhwc,
        };
        let policy = options.policy.as_ref();
        let pipeline = Pipeline::new(recipe, policy, options.epochs, options.seed, output)?;
        let [height, width, _] = pipeline.sample_shape();
        let scale = LEAST_CELL.div_ceil(width).max(1);
        let lines = policy.map_or(1, |policy| {
            (policy.search_space().draws_per_sample() as usize).clamp(1, 4)
        });
        let cell = (
            width * scale + MARGIN,
            height * scale + lines * LINE + MARGIN,
        );
        let rows = u64::from(options.rows).min(dataset.len()) as usize;
        let mut sheet = Sheet::blank(
            MARGIN + (1 + options.shown.len()) * cell.0,
            2 * MARGIN + LINE + rows * cell.1,
        );
        sheet.text(MARGIN, MARGIN, "stored");
        for (column, &epoch) in options.shown.iter().enumerate() {
            let mut title = format!("epoch {epoch}");
            if let Some(schedule) = pipeline.schedule() {
                title.push_str(&format!(", total {:.2}", schedule.total_probability(epoch)));
            }
            sheet.text(MARGIN + (column + 1) * cell.0, MARGIN, &title);
        }
        let mut maker = Maker {
            dataset,
            pipeline: &pipeline,
            reader: dataset.reader()?,
            scratch: PipelineScratch::default(),
            decoder: Decoder::new(),
            resizer: Resizer::default(),
            pixels: vec![0; width * height * 3],
        };
        let order = EpochOrder::new(options.seed, 0, dataset.len());
        for row in 0..rows {
            let index = order.at(row as u64);
            let y = 2 * MARGIN + LINE + row * cell.1;
            let label = maker.stored(index, width, height)?;
            let class = usize::try_from(label)
                .ok()
                .and_then(|label| dataset.classes().get(label));
            sheet.image(MARGIN, y, &maker.pixels, width, scale);
            let class = class.map_or_else(|| label.to_string(), Clone::clone);
            sheet.text(
                MARGIN,
                y + height * scale + 3,
                &fit(&format!("#{index} {class}"), width * scale),
            );
            for (column, &epoch) in options.shown.iter().enumerate() {
                let x = MARGIN + (column + 1) * cell.0;
                maker.augmented(index, epoch)?;
                sheet.image(x, y, &maker.pixels, width, scale);
                // The signs are resolved: a label's "either sign" no longer applies.
                for (line, operation) in maker.scratch.operations().iter().take(lines).enumerate() {
                    let y = y + height * scale + 3 + line * LINE;
                    sheet.text(
                        x,
                        y,
                        &fit(&operation.label().replace('±', ""), width * scale),
                    );
                }
            }
        }
        Ok(sheet)
    }

    /// Width and height in pixels.
    pub fn size(&self) -> (usize, usize) {
        (self.width, self.height)
    }

    /// Writes the sheet as a PNG file.
    ///
    /// # Errors
    /// [`Error::Io`] with the path.
    pub fn write_png(&self, path: &Path) -> Result<()> {
        let failed = |source| Error::Io {
            action: format!("writing {}", path.display()),
            source,
        };
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, self.width as u32, self.height as u32);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let encoded = encoder
            .write_header()
            .and_then(|mut writer| writer.write_image_data(&self.pixels));
        encoded.map_err(|error| failed(std::io::Error::other(error)))?;
        let mut file = std::fs::File::create(path).map_err(failed)?;
        file.write_all(&bytes).map_err(failed)
    }

    fn blank(width: usize, height: usize) -> Sheet {
        Sheet {
            width,
            height,
            pixels: PAPER.repeat(width * height),
        }
    }

    /// Copies an RGB image, each pixel as a square of `scale` pixels.
    fn image(&mut self, x: usize, y: usize, pixels: &[u8], width: usize, scale: usize) {
        for (row, line) in pixels.chunks_exact(width * 3).enumerate() {
            for repeat in 0..scale {
                let start = ((y + row * scale + repeat) * self.width + x) * 3;
                let target = &mut self.pixels[start..start + width * scale * 3];
                for (square, pixel) in target.chunks_exact_mut(scale * 3).zip(line.chunks_exact(3))
                {
                    square
                        .chunks_exact_mut(3)
                        .for_each(|target| target.copy_from_slice(pixel));
                }
            }
        }
    }

    /// Writes a line of text with its upper left corner at (x, y); what does not fit on the sheet is left out.
    fn text(&mut self, x: usize, y: usize, text: &str) {
        for (place, character) in text.chars().enumerate() {
            let Some(glyph) = font8x8::BASIC_FONTS
                .get(character)
                .or_else(|| font8x8::LATIN_FONTS.get(character))
            else {
                continue;
            };
            for (row, bits) in glyph.into_iter().enumerate() {
                for column in (0..GLYPH).filter(|column| bits >> column & 1 == 1) {
                    let (x, y) = (x + place * GLYPH + column, y + row);
                    if x < self.width && y < self.height {
                        let start = (y * self.width + x) * 3;
                        self.pixels[start..start + 3].copy_from_slice(&INK);
                    }
                }
            }
        }
    }
}

/// Shortens a text to the characters that fit into `width` pixels.
fn fit(text: &str, width: usize) -> String {
    text.chars().take(width / GLYPH).collect()
}

/// Makes the images of a sheet.
struct Maker<'a> {
    dataset: &'a Dataset,
    pipeline: &'a Pipeline,
    reader: ddas_formats::DatasetReader,
    scratch: PipelineScratch,
    decoder: Decoder,
    resizer: Resizer,
    pixels: Vec<u8>,
}

impl Maker<'_> {
    fn bad(
        &self,
        index: u64,
        epoch: u32,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Error {
        let at = crate::plan::Position { epoch, step: 0 };
        Error::Sample {
            dataset: self.dataset.path().to_owned(),
            index,
            at,
            source: Box::new(source),
        }
    }

    /// The stored image, its largest centred part of the right proportions; its label.
    fn stored(&mut self, index: u64, width: usize, height: usize) -> Result<i64> {
        let sample = self
            .reader
            .get(index)
            .map_err(|error| self.bad(index, 0, error))?;
        let mut image = Image::new(1, 1);
        self.decoder
            .decode(
                sample.encoding,
                sample.width,
                sample.height,
                sample.payload,
                &mut image,
            )
            .map_err(|error| self.bad(index, 0, error))?;
        let label = sample.label;
        let ratio = (f64::from(image.width()) / width as f64)
            .min(f64::from(image.height()) / height as f64);
        let crop_width = ((width as f64 * ratio) as u32).clamp(1, image.width());
        let crop_height = ((height as f64 * ratio) as u32).clamp(1, image.height());
        let rect = Rect {
            x: (image.width() - crop_width) / 2,
            y: (image.height() - crop_height) / 2,
            width: crop_width,
            height: crop_height,
        };
        let mut fitted = Image::new(1, 1);
        let size = (width as u32, height as u32);
        self.resizer.resize_crop(
            &image,
            rect,
            size,
            ResizeFilter::Bilinear,
            PassOrder::Pillow13,
            &mut fitted,
        )?;
        self.pixels.copy_from_slice(fitted.pixels());
        Ok(label)
    }

    fn augmented(&mut self, index: u64, epoch: u32) -> Result<()> {
        let sample = self
            .reader
            .get(index)
            .map_err(|error| self.bad(index, epoch, error))?;
        let made =
            self.pipeline
                .process(&mut self.scratch, &sample, epoch, index, &mut self.pixels);
        made.map(|_| ())
            .map_err(|error| self.bad(index, epoch, error))
    }
}
