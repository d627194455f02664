//! The parameters of a network in one flat tensor, and the layers that view into it.
//!
//! A meta-gradient step adds, scales and multiplies whole gradients. With every parameter a
//! view of one vector, each of these is a single call, and the layers still see ordinary
//! weights: convolutions in channels-last order, which is the faster one on CPU and GPU.

use ddas_runtime::{SampleRng, Stream};
use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result};

/// The epoch number that keys the initial weights; no search lasts that long.
const INITIALISATION: u32 = u32::MAX;

/// PyTorch's default for batch normalisation.
pub(super) const BATCH_NORM_EPSILON: f64 = 1e-5;

/// One named parameter: a leaf of the autograd graph that shares the flat vector's memory.
#[derive(Debug)]
struct Parameter {
    name: String,
    tensor: Tensor,
}

/// All parameters of a network.
#[derive(Debug)]
pub struct Parameters {
    flat: Tensor,
    parameters: Vec<Parameter>,
    order: Order,
}

/// How the weights of convolutions lie in the flat vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// Output x height x width x input: the networks of this crate.
    ChannelsLast,
    /// As their indices say: modules of the user's, which may view a weight in another shape.
    Contiguous,
}

impl Parameters {
    /// Number of trainable values.
    pub fn count(&self) -> usize {
        self.flat.numel()
    }

    /// Names and tensors, in the order of the network's definition, named as in PyTorch.
    pub fn named(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.parameters
            .iter()
            .map(|parameter| (parameter.name.as_str(), &parameter.tensor))
    }

    /// The vector that all parameters share, of [`Parameters::count`] values. Convolution
    /// weights lie in it as output x height x width x input, those of a TorchScript module as
    /// output x input x height x width.
    pub fn flat(&self) -> &Tensor {
        &self.flat
    }

    /// Gradient of a scalar `loss`, as one vector in the order of [`Parameters::flat`]; 0 where
    /// the loss does not depend on a parameter. The graph behind the loss is freed.
    ///
    /// # Errors
    /// [`Error::Torch`] when the loss depends on no parameter, or memory runs out.
    pub fn gradient(&self, loss: &Tensor) -> Result<Tensor> {
        let inputs: Vec<&Tensor> = self.parameters.iter().map(|p| &p.tensor).collect();
        let gradients = Tensor::f_run_backward(&[loss], &inputs, false, false)?;
        let flattened = gradients
            .iter()
            .zip(&inputs)
            .map(|(gradient, parameter)| match gradient.defined() {
                true => self.order.flatten(gradient),
                // The loss does not depend on it.
                false => Ok(parameter.f_zeros_like()?.f_detach()?.f_reshape([-1])?),
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Tensor::f_cat(&flattened, 0)?)
    }

    /// Copies `value` over the parameter called `name`.
    ///
    /// # Errors
    /// [`Error::Invalid`] when there is no such parameter or its shape differs.
    pub fn assign(&mut self, name: &str, value: &Tensor) -> Result<()> {
        let parameter = self
            .parameters
            .iter_mut()
            .find(|parameter| parameter.name == name)
            .ok_or_else(|| Error::Invalid(format!("the network has no parameter `{name}`")))?;
        if parameter.tensor.size() != value.size() {
            return Err(Error::Invalid(format!(
                "parameter `{name}` has shape {:?}, the given value {:?}",
                parameter.tensor.size(),
                value.size()
            )));
        }
        tch::no_grad(|| parameter.tensor.f_copy_(value))?;
        Ok(())
    }
}

impl Parameters {
    /// Moves the memory of parameters that another owner holds (a TorchScript module) into one
    /// vector; they stay its parameters. One that has several names is taken once.
    ///
    /// # Errors
    /// [`Error::Invalid`] when two different ones share memory.
    pub(super) fn adopt(named: Vec<(String, Tensor)>) -> Result<Self> {
        let order = Order::Contiguous;
        tch::no_grad(|| {
            let mut parameters: Vec<Parameter> = Vec::with_capacity(named.len());
            let mut others: Vec<(usize, Parameter)> = Vec::new();
            for (name, tensor) in named {
                let same = |known: &Parameter| {
                    tensor.numel() > 0 && known.tensor.data_ptr() == tensor.data_ptr()
                };
                match parameters.iter().position(same) {
                    None => parameters.push(Parameter { name, tensor }),
                    Some(known) => others.push((known, Parameter { name, tensor })),
                }
            }
            let flattened = parameters
                .iter()
                .map(|parameter| order.flatten(&parameter.tensor.f_detach()?))
                .collect::<Result<Vec<_>>>()?;
            let adopted = Self {
                flat: Tensor::f_cat(&flattened, 0)?,
                parameters,
                order,
            };
            adopted.attach_views()?;
            // Another name of a parameter has moved along with it.
            for (known, other) in others {
                let known = &adopted.parameters[known];
                if known.tensor.data_ptr() != other.tensor.data_ptr() {
                    return Err(Error::Invalid(format!(
                        "parameters `{}` and `{}` share memory without being the same",
                        known.name, other.name
                    )));
                }
            }
            Ok(adopted)
        })
    }

    /// Makes every parameter a view of the flat vector.
    pub(super) fn attach_views(&self) -> Result<()> {
        tch::no_grad(|| {
            let mut offset = 0;
            for parameter in &self.parameters {
                let shape = parameter.tensor.size();
                let length: i64 = shape.iter().product();
                let view = self
                    .order
                    .view(&self.flat.f_narrow(0, offset, length)?, &shape)?;
                parameter.tensor.shallow_clone().f_set_data(&view)?;
                offset += length;
            }
            Ok(())
        })
    }

    /// Gives every parameter memory of its own, until [`Parameters::attach_views`].
    pub(super) fn detach_views(&self) -> Result<()> {
        tch::no_grad(|| {
            for parameter in &self.parameters {
                let value = parameter.tensor.f_detach()?;
                let mut own = value.f_empty_like()?;
                own.f_copy_(&value)?;
                parameter.tensor.shallow_clone().f_set_data(&own)?;
            }
            Ok(())
        })
    }
}

impl Order {
    /// A part of the flat vector in the shape of a parameter.
    fn view(self, vector: &Tensor, shape: &[i64]) -> Result<Tensor> {
        Ok(match (self, shape) {
            (Self::ChannelsLast, &[outputs, inputs, height, width]) => vector
                .f_view([outputs, height, width, inputs])?
                .f_permute([0, 3, 1, 2])?,
            _ => vector.f_view(shape)?,
        })
    }

    /// A parameter or its gradient as a vector in the order in which [`Parameters::flat`] holds it.
    fn flatten(self, tensor: &Tensor) -> Result<Tensor> {
        Ok(match (self, tensor.dim()) {
            (Self::ChannelsLast, 4) => tensor.f_permute([0, 2, 3, 1])?.f_reshape([-1])?,
            _ => tensor.f_reshape([-1])?,
        })
    }
}

/// What a layer draws its initial values from.
enum Initial {
    /// Uniform between plus and minus the bound.
    Uniform(f64),
    Constant(f64),
}

/// A parameter asked for while a network is being defined.
struct Request {
    name: String,
    shape: Vec<i64>,
    initial: Initial,
}

/// Collects the parameters of a network's layers, then lays them out.
///
/// Layers hold numbers into the list of parameters rather than tensors, so they can be made
/// before the flat vector exists.
pub(super) struct Builder {
    requests: Vec<Request>,
}

impl Builder {
    pub(super) fn new() -> Self {
        Self {
            requests: Vec::new(),
        }
    }

    fn request(&mut self, name: String, shape: &[i64], initial: Initial) -> usize {
        self.requests.push(Request {
            name,
            shape: shape.to_vec(),
            initial,
        });
        self.requests.len() - 1
    }

    /// A convolution without bias. Where batch normalisation follows, as everywhere here, a
    /// bias has no effect and no gradient.
    pub(super) fn conv(&mut self, name: &str, shape: ConvShape) -> Conv {
        let ConvShape {
            inputs,
            outputs,
            kernel,
            stride,
        } = shape;
        let fan_in = (inputs * kernel * kernel) as f64;
        let weight = self.request(
            format!("{name}.weight"),
            &[outputs, inputs, kernel, kernel],
            Initial::Uniform(fan_in.sqrt().recip()),
        );
        Conv {
            weight,
            stride,
            padding: kernel / 2,
        }
    }

    pub(super) fn batch_norm(&mut self, name: &str, channels: i64) -> BatchNorm {
        let weight = self.request(
            format!("{name}.weight"),
            &[channels],
            Initial::Constant(1.0),
        );
        let bias = self.request(format!("{name}.bias"), &[channels], Initial::Constant(0.0));
        BatchNorm { weight, bias }
    }

    pub(super) fn linear(&mut self, name: &str, inputs: i64, outputs: i64) -> Linear {
        let bound = (inputs as f64).sqrt().recip();
        let weight = self.request(
            format!("{name}.weight"),
            &[outputs, inputs],
            Initial::Uniform(bound),
        );
        let bias = self.request(format!("{name}.bias"), &[outputs], Initial::Uniform(bound));
        Linear { weight, bias }
    }

    /// Draws the initial values, PyTorch's default distributions, from `seed` alone: the same
    /// on every device and in every precision.
    pub(super) fn finish(self, seed: u64, kind: Kind, device: Device) -> Result<Parameters> {
        let mut values: Vec<f64> = Vec::new();
        for (number, request) in self.requests.iter().enumerate() {
            let count = request.shape.iter().product::<i64>().unsigned_abs() as usize;
            match request.initial {
                Initial::Constant(value) => values.resize(values.len() + count, value),
                Initial::Uniform(bound) => {
                    let mut rng =
                        SampleRng::new(seed, INITIALISATION, number as u64, Stream::Search);
                    values.extend((0..count).map(|_| rng.between(-bound, bound)));
                }
            }
        }
        let flat = Tensor::f_from_slice(&values)?
            .f_to_kind(kind)?
            .f_to_device(device)?;
        let order = Order::ChannelsLast;
        let mut parameters = Vec::with_capacity(self.requests.len());
        let mut offset = 0;
        for request in self.requests {
            let length: i64 = request.shape.iter().product();
            let vector = flat.f_narrow(0, offset, length)?;
            let view = order.view(&vector, &request.shape)?;
            let tensor = view.f_detach()?.f_set_requires_grad(true)?;
            parameters.push(Parameter {
                name: request.name,
                tensor,
            });
            offset += length;
        }
        Ok(Parameters {
            flat,
            parameters,
            order,
        })
    }
}

/// Channels, side of the square kernel and stride of a convolution; padding keeps the size.
pub(super) struct ConvShape {
    pub(super) inputs: i64,
    pub(super) outputs: i64,
    pub(super) kernel: i64,
    pub(super) stride: i64,
}

pub(super) struct Conv {
    weight: usize,
    stride: i64,
    padding: i64,
}

impl Conv {
    pub(super) fn forward(&self, p: &Parameters, x: &Tensor) -> Result<Tensor> {
        // No copy when both are of one kind; the gradient comes back in the parameter's.
        let weight = p.tensor(self.weight).f_to_kind(x.f_kind()?)?;
        let stride = [self.stride; 2];
        Ok(x.f_conv2d(
            &weight,
            None::<&Tensor>,
            stride,
            [self.padding; 2],
            [1, 1],
            1,
        )?)
    }
}

pub(super) struct BatchNorm {
    weight: usize,
    bias: usize,
}

impl BatchNorm {
    /// Normalises by the statistics of `x` itself. A search never evaluates with running
    /// statistics, so none are kept.
    pub(super) fn forward(&self, p: &Parameters, x: &Tensor) -> Result<Tensor> {
        let (weight, bias) = (p.tensor(self.weight), p.tensor(self.bias));
        let none = None::<&Tensor>;
        let cudnn = true;
        Ok(x.f_batch_norm(
            Some(weight),
            Some(bias),
            none,
            none,
            true,
            0.0,
            BATCH_NORM_EPSILON,
            cudnn,
        )?)
    }

    /// Normalised, then rectified in place: backward needs the rectified values alone.
    pub(super) fn forward_relu(&self, p: &Parameters, x: &Tensor) -> Result<Tensor> {
        Ok(self.forward(p, x)?.f_relu_()?)
    }
}

pub(super) struct Linear {
    weight: usize,
    bias: usize,
}

impl Linear {
    pub(super) fn forward(&self, p: &Parameters, x: &Tensor) -> Result<Tensor> {
        let weight = p.tensor(self.weight);
        let x = x.f_to_kind(weight.f_kind()?)?;
        Ok(x.f_linear(weight, Some(p.tensor(self.bias)))?)
    }
}

impl Parameters {
    /// Layers are made by the same builder as the parameters, so their numbers are in range.
    fn tensor(&self, number: usize) -> &Tensor {
        &self.parameters[number].tensor
    }
}
