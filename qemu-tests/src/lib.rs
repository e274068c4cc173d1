//! Real machines, real sticks: the main road proven on real host software.
