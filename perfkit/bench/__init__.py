"""Trying things out before they cost anything: strategies of the router on a simulated day."""

from perfkit.bench.models import Change, Model
from perfkit.bench.report import Simulation, Summary
from perfkit.bench.simulate import simulate

__all__ = ["Change", "Model", "Simulation", "Summary", "simulate"]
