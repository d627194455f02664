//! The passes of a convolution with what a call may ask of them: safe slices
//! become the pointers of the passes here.

use std::marker::PhantomData;
use std::ops::Range;

use super::filters::Filters;
use super::format::{Full, Operands, PairsOfChannels, PairsOfRows, Rounded};
use super::lanes::{Isa, run, run_narrow};
use super::product::{Ahead, Products};
use super::read::{Activated, Combined, Inputs, OutputGradients, Plain, Source};
use super::tiling::{Layout, Tiling};
use super::write::{Added, Finish, Masked, Outputs, Squared};
use super::{Activation, Gradient, Mask};

/// Multiplies.
///
/// # Safety
///
/// The machine has `isa`, and the instructions for bf16 where they are asked
/// for; the pointers of the pass are valid.
pub(super) unsafe fn multiply(isa: Isa, operands: Operands, products: Products) {
    // SAFETY: as the caller promised.
    unsafe {
        match operands {
            Operands::Full | Operands::Rounded => run(isa, products),
            Operands::Pairs => run_narrow(products),
        }
    }
}

/// Transforms weights.
///
/// # Safety
///
/// As for [`multiply`].
pub(super) unsafe fn transform(isa: Isa, operands: Operands, filters: Filters) {
    // SAFETY: as the caller promised.
    unsafe {
        match operands {
            Operands::Full => run(isa, filters.held::<Full>()),
            Operands::Rounded => run(isa, filters.held::<Rounded>()),
            Operands::Pairs => run_narrow(filters.held::<PairsOfRows>()),
        }
    }
}

/// The pixels of images of so many channels.
pub(super) fn ahead(images: *const f32, pixels: &Range<usize>, channels: usize) -> Ahead {
    Ahead {
        from: images.wrapping_add(pixels.start * channels),
        length: pixels.len() * channels,
    }
}

/// Images to read.
#[derive(Clone, Copy)]
pub(super) enum Input<'a> {
    Plain(&'a [f32]),
    Activated(&'a [f32], Activation<'a>),
    Combined(&'a [f32], &'a [f32], [&'a [f32]; 3]),
}

impl<'a> Input<'a> {
    pub(super) fn activated(
        x: &'a [f32],
        activation: Option<Activation<'a>>,
        channels: usize,
    ) -> Self {
        let Some(activation) = activation else {
            return Input::Plain(x);
        };
        assert_eq!(activation.scale.len(), channels);
        assert_eq!(activation.shift.len(), channels);
        Input::Activated(x, activation)
    }

    pub(super) fn gradient(gradient: Gradient<'a>, channels: usize) -> Self {
        match gradient {
            Gradient::Plain(dy) => Input::Plain(dy),
            Gradient::Normalised { da, y, a, b, c } => {
                assert_eq!(da.len(), y.len());
                assert!([a, b, c].iter().all(|values| values.len() == channels));
                Input::Combined(da, y, [a, b, c])
            }
        }
    }

    pub(super) fn values(&self) -> &'a [f32] {
        match self {
            Input::Plain(x) | Input::Activated(x, _) | Input::Combined(x, ..) => x,
        }
    }

    /// What is read.
    pub(super) fn ahead(&self, pixels: &Range<usize>, channels: usize) -> [Ahead; 2] {
        let of = |images: &[f32]| ahead(images.as_ptr(), pixels, channels);
        match self {
            Input::Plain(x) | Input::Activated(x, _) => [of(x), Ahead::NONE],
            Input::Combined(da, y, _) => [of(da), of(y)],
        }
    }

    /// Transforms `tiles`: with `gradients` those of the outputs, otherwise the inputs.
    #[expect(clippy::too_many_arguments, reason = "what, where from, where to")]
    pub(super) fn transform(
        &self,
        isa: Isa,
        held: Held,
        gradients: bool,
        channels: usize,
        tiling: Tiling,
        tiles: Range<usize>,
        to: &mut [f32],
        layout: Layout,
    ) {
        let to = to.as_mut_ptr();
        let transform = Transform {
            isa,
            held,
            gradients,
            channels,
            tiling,
            tiles,
            to,
            layout,
        };
        match *self {
            Input::Plain(x) => transform.run(Plain(x.as_ptr())),
            Input::Activated(x, Activation { scale, shift }) => transform.run(Activated {
                x: x.as_ptr(),
                scale: scale.as_ptr(),
                shift: shift.as_ptr(),
            }),
            Input::Combined(da, y, [a, b, c]) => transform.run(Combined {
                da: da.as_ptr(),
                y: y.as_ptr(),
                a: a.as_ptr(),
                b: b.as_ptr(),
                c: c.as_ptr(),
            }),
        }
    }
}

/// How operands are held, see [`format`](self::format).
#[derive(Clone, Copy)]
pub(super) enum Held {
    Full,
    Rounded,
    PairsOfChannels,
    PairsOfRows,
}

impl Held {
    /// For such operands, in `pairs` where they are pairs.
    pub(super) fn new(operands: Operands, pairs: Held) -> Held {
        match operands {
            Operands::Full => Held::Full,
            Operands::Rounded => Held::Rounded,
            Operands::Pairs => pairs,
        }
    }
}

/// See [`Input::transform`].
struct Transform {
    isa: Isa,
    held: Held,
    gradients: bool,
    channels: usize,
    tiling: Tiling,
    tiles: Range<usize>,
    to: *mut f32,
    layout: Layout,
}

impl Transform {
    fn run(self, source: impl Source) {
        let isa = self.isa;
        // SAFETY: the machine has `isa`, and the instructions for bf16 where
        // they are asked for; the source has the channels of all tiles, and
        // there is room for so many in the layout.
        unsafe {
            match (self.held, self.gradients) {
                (Held::Full, false) => run(isa, self.inputs::<_, Full>(source)),
                (Held::Full, true) => run(isa, self.output_gradients::<_, Full>(source)),
                (Held::Rounded, false) => run(isa, self.inputs::<_, Rounded>(source)),
                (Held::Rounded, true) => run(isa, self.output_gradients::<_, Rounded>(source)),
                (Held::PairsOfChannels, false) => {
                    run_narrow(self.inputs::<_, PairsOfChannels>(source));
                }
                (Held::PairsOfChannels, true) => {
                    run_narrow(self.output_gradients::<_, PairsOfChannels>(source));
                }
                (Held::PairsOfRows, false) => run_narrow(self.inputs::<_, PairsOfRows>(source)),
                (Held::PairsOfRows, true) => {
                    run_narrow(self.output_gradients::<_, PairsOfRows>(source));
                }
            }
        }
    }

    fn inputs<S, F>(self, source: S) -> Inputs<S, F> {
        let Transform {
            channels,
            tiling,
            tiles,
            to,
            layout,
            ..
        } = self;
        Inputs {
            source,
            channels,
            tiling,
            tiles,
            to,
            layout,
            format: PhantomData,
        }
    }

    fn output_gradients<S, F>(self, source: S) -> OutputGradients<S, F> {
        let Transform {
            channels,
            tiling,
            tiles,
            to,
            layout,
            ..
        } = self;
        OutputGradients {
            source,
            channels,
            tiling,
            tiles,
            to,
            layout,
            format: PhantomData,
        }
    }
}

/// What becomes of the outputs.
#[derive(Clone, Copy)]
pub(super) enum Finishing<'a> {
    Squared,
    Added(&'a [f32]),
    Masked(Mask<'a>),
}

/// Where the outputs of a block go.
pub(super) struct Target<'a> {
    pub(super) channels: usize,
    pub(super) tiling: Tiling,
    pub(super) tiles: Range<usize>,
    pub(super) stream: bool,
    pub(super) out: &'a Shared,
}

impl Finishing<'_> {
    /// What is read.
    pub(super) fn ahead(&self, pixels: &Range<usize>, channels: usize) -> Ahead {
        match self {
            Finishing::Squared => Ahead::NONE,
            Finishing::Added(x) | Finishing::Masked(Mask { x, .. }) => {
                ahead(x.as_ptr(), pixels, channels)
            }
        }
    }

    pub(super) fn write(
        &self,
        isa: Isa,
        target: Target,
        from: &[f32],
        layout: Layout,
        sums: &mut [f32],
    ) {
        match *self {
            Finishing::Squared => target.write(isa, Squared, from, layout, sums),
            Finishing::Added(residual) => {
                target.write(isa, Added(residual.as_ptr()), from, layout, sums);
            }
            Finishing::Masked(Mask {
                x,
                scale,
                shift,
                mean,
                rstd,
            }) => {
                let masked = Masked {
                    x: x.as_ptr(),
                    scale: scale.as_ptr(),
                    shift: shift.as_ptr(),
                    mean: mean.as_ptr(),
                    rstd: rstd.as_ptr(),
                };
                target.write(isa, masked, from, layout, sums);
            }
        }
    }
}

impl Target<'_> {
    fn write(self, isa: Isa, finish: impl Finish, from: &[f32], layout: Layout, sums: &mut [f32]) {
        let Target {
            channels,
            tiling,
            tiles,
            stream,
            out,
        } = self;
        let outputs = Outputs {
            finish,
            channels,
            tiling,
            tiles,
            from: from.as_ptr(),
            layout,
            to: out.0,
            stream,
            sums: sums.as_mut_ptr(),
        };
        // SAFETY: the machine has `isa`; all slices have the channels of all
        // tiles. Blocks have different tiles, tiles different pixels: no two
        // threads write the same.
        unsafe { run(isa, outputs) };
    }
}

/// The output, of which each thread writes its own pixels.
pub(super) struct Shared(pub(super) *mut f32);

// SAFETY: threads write through it to different places, see `Target::write`.
unsafe impl Sync for Shared {}
