"""What runs chainrule elsewhere: images, clusters, proxies."""
