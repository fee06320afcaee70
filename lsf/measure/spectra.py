"""Singular values of every weight matrix of every block, one tensor at a time."""

import torch

from lsf.analysis.measurements import Spectrum
from lsf.measure.devices import has_float64
from lsf.measure.loading import LoadedModel
from lsf.measure.offload import tensors_of
from lsf.reporting import Reporter

SPECTRA = "spectra"
"""The phase, by the words it is told in."""


@torch.no_grad()
def block_spectra(loaded: LoadedModel, report: Reporter) -> tuple[tuple[Spectrum, ...], ...] | None:
    """Return the spectra of each block's matrices; a stack of expert matrices counts as that many matrices.

    Each matrix is decomposed alone in float32 on its device (on the CPU where the device has no float64, as mps, whose
    decompositions fall back to it anyway), so that only its own copy is held. None where a stop was asked for before
    the last one was done.
    """
    spectra = []
    for index, block in enumerate(loaded.anatomy.blocks):
        found: list[Spectrum] = []
        for _, parameter in tensors_of(block):
            if parameter.dim() < 2 or min(parameter.shape[-2:]) < 2:
                continue
            for matrix in parameter.reshape(-1, *parameter.shape[-2:]):
                if report.stop:
                    return None
                exact = matrix.float() if has_float64(matrix.device) else matrix.cpu().float()
                found.append(Spectrum(torch.linalg.svdvals(exact).cpu().numpy(), (matrix.shape[0], matrix.shape[1])))
        spectra.append(tuple(found))
        report.progress(index + 1, len(loaded.anatomy.blocks), SPECTRA)
    return tuple(spectra)
