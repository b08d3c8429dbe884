"""What a store is made from: backbones, data, hyper-parameters, places of examples."""
