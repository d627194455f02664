"""One meta-gradient step in float64 PyTorch, written to a safetensors file with its inputs and results.

    python reference_step.py --seed 3 --out step.safetensors

`ddas-search check-step step.safetensors` repeats the step and compares. Everything here goes through
autograd: the policy's gradient is taken of the surrogate as a whole, not from formulas for its parts.

Inputs: theta.* (parameters of `Proxy`), alpha_o [K] and alpha_tp [1] (logits), x0 [B,3,S,S], x_aug
[L,B,3,S,S], x_val [V,3,S,S], y [B], y_val [V], policies [L,N_o], eta [1]. Results: loss0, loss_aug,
loss_val (mean cross entropy), dot0, dot_aug (inner products with the validation gradient), z, z_g,
grad_p_o, grad_p_tp, grad_alpha_o, grad_alpha_tp, theta_next.*.
"""

import argparse

import torch
from safetensors.torch import save_file
from torch import nn
from torch.func import functional_call


class Proxy(nn.Module):
    """conv3x3(3, 8) - BN - ReLU - conv3x3(8, 16, stride 2) - BN - ReLU - global mean - linear."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(16)
        self.linear = nn.Linear(16, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = torch.relu(self.bn1(self.conv1(images)))
        features = torch.relu(self.bn2(self.conv2(features)))
        return self.linear(features.mean(dim=(2, 3)))


def reference_step(
    seed: int = 0,
    *,
    operations: int = 68,
    draws: int = 2,
    branches: int = 3,
    batch: int = 8,
    val_batch: int = 16,
    size: int = 16,
    classes: int = 10,
    eta: float = 0.1,
    noise: float = 0.5,
) -> dict[str, torch.Tensor]:
    """Inputs and results of one step on random data; with `noise` 0 the copies equal the plain batch."""
    torch.manual_seed(seed)
    torch.set_default_dtype(torch.float64)
    network = Proxy(classes).train()
    x0 = torch.randn(batch, 3, size, size)
    x_aug = x0 + noise * torch.randn(branches, batch, 3, size, size)
    x_val = torch.randn(val_batch, 3, size, size)
    y, y_val = torch.randint(classes, (batch,)), torch.randint(classes, (val_batch,))
    policies = torch.randint(operations, (branches, draws))
    alpha_o = 0.5 * torch.randn(operations)
    alpha_tp = torch.randn(1)

    theta = {name: value.detach().clone() for name, value in network.named_parameters()}

    def loss(parameters: dict[str, torch.Tensor], images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(functional_call(network, parameters, (images,)), labels)

    def loss_and_gradient(parameters, images, labels):
        leaves = {name: value.detach().requires_grad_() for name, value in parameters.items()}
        value = loss(leaves, images, labels)
        return value.detach(), dict(zip(leaves, torch.autograd.grad(value, list(leaves.values()))))

    loss0, g0 = loss_and_gradient(theta, x0, y)
    loss_aug, g_aug = zip(*(loss_and_gradient(theta, copy, y) for copy in x_aug))

    logits, total_logit = alpha_o.clone().requires_grad_(), alpha_tp.clone().requires_grad_()
    p_o, p_tp = torch.softmax(logits, dim=0), torch.sigmoid(total_logit)
    probability = torch.stack([p_o[policy].prod() for policy in policies])
    z = probability.sum().detach()

    # The update, as a function of the weights; its derivative is the whole method.
    weights = p_tp * probability / z
    theta_next = {
        name: theta[name] - eta * (g0[name] + sum(w * (g[name] - g0[name]) for w, g in zip(weights, g_aug)))
        for name in theta
    }
    loss_val, g_val = loss_and_gradient(theta_next, x_val, y_val)
    updated = torch.stack([(theta_next[name] * g_val[name]).sum() for name in theta]).sum()

    def dot(one, other):
        return sum((one[name] * other[name]).sum() for name in theta)

    dot0 = dot(g_val, g0)
    dot_aug = torch.stack([dot(g_val, g) for g in g_aug])
    z_g = (dot0 - dot_aug).abs().sum()
    # Z_g only scales; where nothing differs there is nothing to scale.
    surrogate = updated / z_g if z_g > 0 else 0.0 * updated
    grad_p_o, grad_p_tp, grad_alpha_o, grad_alpha_tp = torch.autograd.grad(
        surrogate, [p_o, p_tp, logits, total_logit]
    )

    tensors = {
        "alpha_o": alpha_o, "alpha_tp": alpha_tp, "x0": x0, "x_aug": x_aug, "x_val": x_val, "y": y, "y_val": y_val,
        "policies": policies, "eta": torch.tensor([eta]), "loss0": loss0.reshape(1), "loss_aug": torch.stack(loss_aug),
        "loss_val": loss_val.reshape(1), "dot0": dot0.reshape(1), "dot_aug": dot_aug, "z": z.reshape(1),
        "z_g": z_g.reshape(1), "grad_p_o": grad_p_o, "grad_p_tp": grad_p_tp, "grad_alpha_o": grad_alpha_o,
        "grad_alpha_tp": grad_alpha_tp,
    }  # fmt: skip
    tensors |= {f"theta.{name}": value for name, value in theta.items()}
    tensors |= {f"theta_next.{name}": value for name, value in theta_next.items()}
    return {name: value.detach().contiguous() for name, value in tensors.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()
    save_file(reference_step(arguments.seed), arguments.out)


if __name__ == "__main__":
    main()
