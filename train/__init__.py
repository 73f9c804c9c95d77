"""How the network learns, and the clips it is shown with."""
