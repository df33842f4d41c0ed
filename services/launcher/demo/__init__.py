"""The demo world: a miniature cluster of network namespaces with real traffic in it."""
