mod kernel;
mod properties;
mod scenarios;
mod simulation;
mod speed;
