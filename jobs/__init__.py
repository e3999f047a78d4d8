"""What a run is: specs, studies, the store, the dispatcher, workers, the HTTP API and the `symlab` command."""
