//! From pixels to the delivered sample, and what is done to it there.

use super::{Pipeline, PipelineScratch};
use crate::normal;
use crate::output::{Hole, Normalization, OutputFormat, Writer};
use crate::recipe::{Action, Erase};
use crate::rng::SampleRng;

use super::pixels::Shown;

/// A writer whose table is made anew for each sample, and what it is for.
#[derive(Debug)]
pub(super) struct LitWriter {
    made_for: (OutputFormat, Normalization, u32),
    writer: Writer,
}

impl Pipeline {
    /// Writes what is shown of the image into `out` and carries out `actions`,
    /// those from the first on that needs more than pixels of 8 bits.
    pub(super) fn finish(
        &self,
        scratch: &mut PipelineScratch,
        shown: &Shown,
        actions: &[Action],
        mut noise: SampleRng,
        out: &mut [u8],
    ) {
        let (writer, actions) = match actions {
            [Action::Light(light), rest @ ..] => (self.lit(&mut scratch.lit, *light), rest),
            _ => (&self.writer, actions),
        };
        // What comes first may as well be left out while writing.
        let (hole, actions) = match actions {
            [Action::Cut { columns, rows }, rest @ ..] => {
                let hole = Hole {
                    columns: columns[0]..columns[1],
                    rows: rows[0]..rows[1],
                };
                (Some(hole), rest)
            }
            _ => (None, actions),
        };
        let read_soon = self.mix.is_some() || !actions.is_empty();
        writer.write(&scratch.image, shown.view(), hole.as_ref(), read_soon, out);
        for action in actions {
            match *action {
                Action::Cut { columns, rows } => {
                    self.eraser.erase(out, columns, rows, || [0.0; 3]);
                }
                Action::Erase {
                    columns,
                    rows,
                    value: Erase::Constant(values),
                } => self.eraser.erase(out, columns, rows, || values),
                Action::Erase {
                    columns,
                    rows,
                    value: Erase::Color,
                } => {
                    let (red, green) = normal::pair(&mut noise);
                    let (blue, _) = normal::pair(&mut noise);
                    let colour = [red as f32, green as f32, blue as f32];
                    self.eraser.erase(out, columns, rows, || colour);
                }
                Action::Erase {
                    columns,
                    rows,
                    value: Erase::Noise,
                } => {
                    let mut next = || self.normal.draw(&mut noise);
                    let pixel = || [next(), next(), next()];
                    self.eraser.erase(out, columns, rows, pixel);
                }
                _ => {}
            }
        }
    }

    fn lit<'a>(&self, lit: &'a mut Option<LitWriter>, light: [f32; 3]) -> &'a Writer {
        let (format, size) = (self.output, self.recipe.size());
        let normalization = self.recipe.normalization();
        // A thread's scratch can come from another pipeline.
        let made_for = (format, normalization, size);
        lit.take_if(|lit| lit.made_for != made_for);
        let lit = lit.get_or_insert_with(|| LitWriter {
            made_for,
            writer: Writer::new(format, &normalization, size),
        });
        lit.writer.relight(format, &normalization, light);
        &lit.writer
    }
}
