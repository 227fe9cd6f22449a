"""The Python library: every name of `kdsearch.__all__`, each loaded when it is first used.

    import kdsearch

    study = kdsearch.search("clfd", data="mfnet=/data/MFNet", trials=50)
    study.frontier()
    study.student("knee", budget="gflops<=5")

The command line is a thin layer over these functions.
"""
